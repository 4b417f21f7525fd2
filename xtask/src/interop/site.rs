//! A web site on loopback: a page of megabytes, a page with two hundred pictures, and a place to send things to.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use super::{payload, programs};
use crate::socks;

/// Serves on both loopback addresses, on one port, for as long as xtask runs.
#[derive(Debug)]
pub(crate) struct Site {
    port: u16,
    has_ipv6: bool,
    content: Arc<Content>,
}

#[derive(Debug)]
struct Content {
    page: Vec<u8>,
    leaf: Vec<u8>,
    gallery: String,
    /// Connections that came.
    visits: AtomicUsize,
    /// Requests for a picture.
    pictures: AtomicUsize,
}

/// How many pictures the gallery shows.
pub(super) const PICTURES: usize = 200;

const PAGE_BYTES: usize = 3 * 1024 * 1024 + 7;

/// What even a cipher that takes a block for every bit carries soon.
const LEAF_BYTES: usize = 20_001;

/// The smallest there is: one transparent point.
const PICTURE: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

impl Site {
    /// Starts serving.
    pub(crate) fn start() -> Result<Self> {
        let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        let content = Arc::new(Content::new());
        // The port that the kernel chose on one address may be taken on the other.
        for _ in 0..20 {
            let ipv4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = ipv4.local_addr()?.port();
            if !has_ipv6 {
                serve(ipv4, &content);
                return Ok(Self { port, has_ipv6, content });
            }
            if let Ok(ipv6) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
                serve(ipv4, &content);
                serve(ipv6, &content);
                return Ok(Self { port, has_ipv6, content });
            }
        }
        bail!("no port is free on both loopback addresses")
    }

    /// Where it is on 127.0.0.1, and on ::1 where there is one.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Every host that leads here.
    pub(super) fn hosts(&self) -> Vec<&'static str> {
        let mut hosts = vec!["127.0.0.1", "localhost"];
        if self.has_ipv6 {
            hosts.push("[::1]");
        }
        hosts
    }

    /// The address of the large page.
    pub(super) fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.port)
    }

    /// How many connections have come.
    pub(super) fn visits(&self) -> usize {
        self.content.visits.load(Ordering::Relaxed)
    }

    /// How many pictures were asked for.
    pub(super) fn pictures(&self) -> usize {
        self.content.pictures.load(Ordering::Relaxed)
    }

    /// Whether this is the large page.
    pub(super) fn check_page(&self, came: &[u8]) -> Result<()> {
        let same = blake3::hash(came) == blake3::hash(&self.content.page);
        ensure!(same, "{} other bytes came", came.len());
        Ok(())
    }

    /// Downloads the large page with curl; `options` say which way.
    pub(super) fn download(&self, options: &[&str], host: &str) -> Result<()> {
        let came = programs::curl(options, &self.url(host))?;
        self.check_page(&came).with_context(|| format!("curl {} to {host}", options.join(" ")))
    }

    /// The same with a page that is short.
    pub(super) fn download_leaf(&self, options: &[&str], host: &str) -> Result<()> {
        let came = programs::curl(options, &format!("{}leaf", self.url(host)))?;
        let same = came == self.content.leaf;
        ensure!(same, "curl {} to {host}: {} other bytes came", options.join(" "), came.len());
        Ok(())
    }
}

impl Content {
    fn new() -> Self {
        let mut gallery = String::from("<!doctype html><title>gallery</title><p id=\"count\">0</p>");
        for number in 0..PICTURES {
            // Infallible: it is a string.
            write!(gallery, "<img src=\"/picture/{number}\" onload=\"count.textContent++\">").ok();
        }
        Self {
            page: payload(PAGE_BYTES, 80),
            leaf: payload(LEAF_BYTES, 81),
            gallery,
            visits: AtomicUsize::new(0),
            pictures: AtomicUsize::new(0),
        }
    }
}

fn serve(listener: TcpListener, content: &Arc<Content>) {
    let content = Arc::clone(content);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let content = Arc::clone(&content);
            content.visits.fetch_add(1, Ordering::Relaxed);
            // A client that goes away early is its own affair: it says what it missed.
            thread::spawn(move || converse(&stream, &content).ok());
        }
    });
}

/// Answers one request after the other until the client ends.
fn converse(stream: &TcpStream, content: &Content) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(socks::PATIENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        let sent = request.body;
        let (kind, body): (&str, &[u8]) = match request.path.as_str() {
            "/" => ("application/octet-stream", &content.page),
            "/leaf" => ("application/octet-stream", &content.leaf),
            "/gallery" => ("text/html", content.gallery.as_bytes()),
            "/mirror" => ("application/octet-stream", &sent),
            path if path.starts_with("/picture/") => {
                content.pictures.fetch_add(1, Ordering::Relaxed);
                ("image/gif", PICTURE)
            }
            _ => ("text/plain", b"nothing is here"),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut writer = stream;
        writer.write_all(head.as_bytes())?;
        writer.write_all(body)?;
    }
    Ok(())
}

struct Request {
    path: String,
    body: Vec<u8>,
}

impl Request {
    /// The next request; nothing when the client has ended.
    fn read(reader: &mut BufReader<&TcpStream>) -> Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let path = line.split(' ').nth(1).context("no path")?.to_owned();
        let (mut bytes, mut is_chunked) = (0, false);
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let header = line.trim().to_ascii_lowercase();
            match header.split_once(':') {
                Some(("content-length", value)) => bytes = value.trim().parse()?,
                Some(("transfer-encoding", value)) => is_chunked = value.trim() == "chunked",
                // What a proxy must keep to itself (RFC 9110, 7.6.1 and 11.7.2).
                Some((name @ ("proxy-authorization" | "proxy-connection"), _)) => bail!("{name} got here"),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; bytes];
        reader.read_exact(&mut body)?;
        while is_chunked {
            line.clear();
            reader.read_line(&mut line)?;
            let start = body.len();
            let bytes = usize::from_str_radix(line.trim(), 16)?;
            body.resize(start + bytes + 2, 0);
            reader.read_exact(&mut body[start..])?;
            body.truncate(start + bytes);
            is_chunked = bytes > 0;
        }
        Ok(Some(Self { path, body }))
    }
}
