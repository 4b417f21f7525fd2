//! A web server of one page, for curl.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::payload;
use crate::socks;

/// Serves the page on both loopback addresses, on one port, for as long as xtask runs.
#[derive(Debug)]
pub(crate) struct Web {
    /// The port on 127.0.0.1 and on ::1.
    pub(crate) port: u16,
    /// Whether this machine has IPv6 on loopback.
    pub(crate) has_ipv6: bool,
    page: Arc<Vec<u8>>,
}

const PAGE_BYTES: usize = 3 * 1024 * 1024 + 7;

impl Web {
    /// Starts serving.
    pub(crate) fn start() -> Result<Self> {
        let page = Arc::new(payload(PAGE_BYTES, 80));
        let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        // The port that the kernel chose on one address may be taken on the other.
        for _ in 0..20 {
            let ipv4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = ipv4.local_addr()?.port();
            if !has_ipv6 {
                serve(ipv4, &page);
                return Ok(Self { port, has_ipv6, page });
            }
            if let Ok(ipv6) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
                serve(ipv4, &page);
                serve(ipv6, &page);
                return Ok(Self { port, has_ipv6, page });
            }
        }
        anyhow::bail!("no port is free on both loopback addresses")
    }

    /// Downloads the page with curl through the proxy; `option` says who resolves names.
    pub(crate) fn download(&self, option: &str, proxy: &str, host: &str) -> Result<()> {
        let patience = socks::PATIENCE.as_secs().to_string();
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--noproxy",
                "",
                "--max-time",
                &patience,
                option,
                proxy,
            ])
            .arg(format!("http://{host}:{}/", self.port))
            .output()
            .context("run curl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "curl {option} to {host}: {}", said.trim());
        let (came, sent) = (blake3::hash(&output.stdout), blake3::hash(&self.page));
        ensure!(came == sent, "curl {option} to {host} got {} other bytes", output.stdout.len());
        Ok(())
    }
}

fn serve(listener: TcpListener, page: &Arc<Vec<u8>>) {
    let page = Arc::clone(page);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let page = Arc::clone(&page);
            // A client that goes away early is its own affair: curl says what it missed.
            thread::spawn(move || answer(&stream, &page).ok());
        }
    });
}

fn answer(mut stream: &TcpStream, page: &[u8]) -> Result<()> {
    stream.set_read_timeout(Some(socks::PATIENCE))?;
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len())?;
    Ok(stream.write_all(page)?)
}
