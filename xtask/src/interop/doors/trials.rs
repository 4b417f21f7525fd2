//! What is tried at each door.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::programs::{self, Shell, Visitor};
use super::super::{names, payload};
use super::{Door, Trial, cache};
use crate::socks;

/// The passwords at the guarded door.
pub(super) const ALICE: &str = "correct horse battery";
pub(super) const BOB: &str = "staple: or not";

/// How long a refusal may take.
const REFUSAL: Duration = Duration::from_secs(5);

/// Everybody is let in, whatever they speak.
pub(super) fn open<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    let (address, site) = (door.address, door.site);
    let mut trials = Vec::new();
    for option in ["--socks4", "--socks4a", "--socks5", "--socks5-hostname"] {
        let hosts: Vec<_> = site.hosts();
        let hosts = hosts.into_iter().filter(move |host| option.starts_with("--socks5") || *host != "[::1]");
        trials.push(trial(Visitor::Curl, option, "the page", move || {
            hosts.clone().try_for_each(|host| site.download(&[option, &address.to_string()], host))
        }));
    }
    let http = format!("http://{address}");
    for (way, more) in [("-x http", None), ("-x http -p", Some("-p"))] {
        let options: Vec<String> = ["-x", &http].into_iter().chain(more).map(str::to_owned).collect();
        trials.push(trial(Visitor::Curl, way, "the page", move || {
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            site.hosts().into_iter().try_for_each(|host| site.download(&options, host))
        }));
    }
    trials.push(trial(
        Visitor::Curl,
        "-x http, three pages in one go",
        "the pages, one connection",
        move || {
            let (url, proxy) = (site.url("127.0.0.1"), format!("http://{address}"));
            let counted = ["-x", &proxy, "-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null"];
            let more = ["-w", "%{num_connects} ", &url, &url];
            let said = programs::curl(&[&counted[..], &more].concat(), &url)?;
            let said = String::from_utf8_lossy(&said).into_owned();
            ensure!(said.trim() == "1 0 0", "connections for each page: {said}");
            Ok(())
        },
    ));
    for (way, header) in
        [("-x http, a form", None), ("-x http, a form in chunks", Some("Transfer-Encoding: chunked"))]
    {
        trials.push(trial(Visitor::Curl, way, "its echo", move || upload(door, header)));
    }
    for kind in ["socks4", "socks5", "http"] {
        trials.push(trial(Visitor::Ncat, kind, "the page", move || {
            site.check_page(&programs::ncat(&["--proxy", &address.to_string(), "--proxy-type", kind], site)?)
        }));
    }
    for kind in ["socks4", "socks5", "http"] {
        trials.push(trial(Visitor::Proxychains, kind, "the page", move || {
            let line = format!("{kind} {} {}", address.ip(), address.port());
            site.check_page(&programs::proxychains(&line, &site.url("127.0.0.1"))?)
        }));
    }
    for kind in ["socks4", "socks5", "http"] {
        trials.push(trial(Visitor::Ssh, &format!("ncat, {kind}"), "a megabyte and back", move || {
            let command = format!("ncat --proxy {address} --proxy-type {kind} %h %p");
            Shell::start()?.echo(&command, &payload(1_000_000, 7))
        }));
    }
    for kind in ["socks4", "socks5", "http"] {
        trials.push(trial(Visitor::Chromium, kind, "200 pictures", move || {
            programs::browse(&format!("{kind}://{address}"), site)
        }));
    }
    trials.extend(cache::open(door));
    trials
}

/// Only those who say a name with its password are let in.
pub(super) fn guarded<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    let (address, site) = (door.address, door.site);
    let mut trials = Vec::new();
    let http = format!("http://{address}");
    let ways: [(&str, Vec<String>); 3] = [
        ("--socks5-hostname", vec!["--socks5-hostname".to_owned(), address.to_string()]),
        ("-x http", vec!["-x".to_owned(), http.clone()]),
        ("-x http -p", vec!["-p".to_owned(), "-x".to_owned(), http]),
    ];
    for (way, options) in ways {
        let logins = [
            ("alice", Some(format!("alice:{ALICE}")), true),
            ("bob", Some(format!("bob:{BOB}")), true),
            ("a wrong password", Some(format!("alice:{BOB}")), false),
            ("a wrong name", Some(format!("carol:{ALICE}")), false),
            ("no login", None, false),
        ];
        for (who, login, is_known) in logins {
            let mut options = options.clone();
            options.extend(login.into_iter().flat_map(|login| ["--proxy-user".to_owned(), login]));
            let end = if is_known { "the page" } else { "a refusal" };
            trials.push(trial(Visitor::Curl, &format!("{way}, {who}"), end, move || {
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                let download = || site.download(&options, "127.0.0.1");
                if is_known {
                    return download();
                }
                let why = refused(door, download)?;
                // RFC 9110, 15.5.8: what makes a program ask its user for a login.
                let is_told = options.contains(&"--socks5-hostname") || why.contains("407");
                ensure!(is_told, "not told that a login is wanted: {why}");
                Ok(())
            }));
        }
    }
    // SOCKS4 has a name and no password: nobody comes in with it.
    for (way, option) in [("--socks4", "socks4"), ("--socks4a", "socks4a")] {
        trials.push(trial(Visitor::Curl, &format!("{way}, alice as its user"), "a refusal", move || {
            let proxy = format!("{option}://alice@{address}");
            refused(door, || site.download(&["-x", &proxy], "127.0.0.1")).map(drop)
        }));
    }
    for kind in ["socks5", "http"] {
        for (who, login, is_known) in [("bob", BOB, true), ("a wrong password", ALICE, false)] {
            let end = if is_known { "the page" } else { "a refusal" };
            trials.push(trial(Visitor::Ncat, &format!("{kind}, {who}"), end, move || {
                let (proxy, login) = (address.to_string(), format!("bob:{login}"));
                let options = ["--proxy", &proxy, "--proxy-type", kind, "--proxy-auth", &login];
                let ask = || site.check_page(&programs::ncat(&options, site)?);
                if is_known { ask() } else { refused(door, ask).map(drop) }
            }));
        }
    }
    trials.extend(cache::guarded(door));
    trials
}

/// SOCKS in every form, and nothing else.
pub(super) fn socks_alone<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    let mut trials: Vec<_> =
        ["--socks4a", "--socks5-hostname"].map(|option| page(door, option)).into_iter().collect();
    trials.push(no_page(door, "-x"));
    trials
}

/// HTTP, and nothing else.
pub(super) fn http_alone<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    let mut trials: Vec<_> = ["-x", "-px"].map(|option| page(door, option)).into_iter().collect();
    trials.extend(["--socks4a", "--socks5-hostname"].map(|option| no_page(door, option)));
    trials
}

/// Whether anything comes through at all.
pub(super) fn brief<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    ["--socks4a", "--socks5-hostname", "-x", "-px"].map(|option| page(door, option)).into_iter().collect()
}

fn page<'a>(door: &'a Door<'a>, option: &'static str) -> Trial<'a> {
    trial(Visitor::Curl, option, "the page", move || {
        door.site.download(&[option, &door.address.to_string()], "127.0.0.1")
    })
}

fn no_page<'a>(door: &'a Door<'a>, option: &'static str) -> Trial<'a> {
    trial(Visitor::Curl, option, "a refusal", move || {
        refused(door, || door.site.download(&[option, &door.address.to_string()], "127.0.0.1")).map(drop)
    })
}

/// Every connection leads to the site.
pub(super) fn tunnel<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    let (address, site) = (door.address, door.site);
    vec![
        trial(Visitor::Curl, "no proxy", "the page", move || {
            site.check_page(&programs::curl(&[], &format!("http://{address}/"))?)
        }),
        trial(
            Visitor::Own,
            "a connection that says nothing",
            "the target is dialled all the same",
            move || {
                let before = site.visits();
                let _quiet = TcpStream::connect(address)?;
                let dialled = crate::child::wait_until(REFUSAL, || (site.visits() > before).then_some(()));
                dialled.context("nobody came")
            },
        ),
    ]
}

/// Every datagram leads to a name server, and every connection.
pub(super) fn names<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    let records = |options: &'static [&str], wanted: String| {
        move || {
            let told = programs::dig(door.address, options)?;
            ensure!(told.trim() == wanted, "it was told {:.80}", told.trim());
            Ok(())
        }
    };
    let texts = vec![format!("\"{}\"", String::from_utf8_lossy(&names::TEXT)); names::TEXTS].join(" ");
    let address = names::ADDRESS.to_string();
    vec![
        trial(Visitor::Dig, "a datagram", "the address", records(&[], address.clone())),
        trial(Visitor::Dig, "+tcp", "the address", records(&["+tcp"], address)),
        trial(Visitor::Dig, "a long answer", "all of it", records(&["+bufsize=4096", "-t", "TXT"], texts)),
    ]
}

/// A balancer in front names the client, and the target is told the name.
pub(super) fn balanced<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    let version_1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 1080\r\n".to_vec();
    let mut version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    version_2.extend([192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 0x04, 0x38]);
    let forms = [("a header of version 1", version_1), ("a header of version 2", version_2)];
    let mut trials: Vec<Trial<'a>> = forms
        .into_iter()
        .map(|(way, header)| {
            trial(Visitor::Own, way, "the client's address at the target", move || {
                let (mut target, mut client) = balanced_session(door.address, &header)?;
                client.write_all(b"payload")?;
                let mut came = [0; 16 + 12 + 7];
                target.read_exact(&mut came).context("at the target")?;
                ensure!(came.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"), "no header came: {came:?}");
                ensure!(
                    came[16..20] == [192, 0, 2, 7] && came[24..26] == [0x12, 0x67],
                    "of another: {came:?}"
                );
                ensure!(came.ends_with(b"payload"), "other bytes came: {came:?}");
                Ok(())
            })
        })
        .collect();
    trials.push(trial(Visitor::Own, "no header", "a refusal", move || {
        refused(door, || balanced_session(door.address, b"").map(drop)).map(drop)
    }));
    trials.push(no_page(door, "--socks5"));
    trials
}

/// A SOCKS5 session after `header`: its end at the target, and the client's.
fn balanced_session(proxy: SocketAddr, header: &[u8]) -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let target = listener.local_addr()?;
    let client = socks::connect_after(header, proxy, target)?;
    Ok((socks::accept(&listener, socks::PATIENCE)?, client))
}

fn upload(door: &Door<'_>, header: Option<&str>) -> Result<()> {
    let sent = payload(600_000, 9);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("form");
    std::fs::write(&file, &sent)?;
    let (proxy, form) = (format!("http://{}", door.address), format!("@{}", file.display()));
    let mut options = vec!["-x", &proxy, "--data-binary", &form];
    options.extend(header.into_iter().flat_map(|header| ["-H", header]));
    let came = programs::curl(&options, &format!("{}mirror", door.site.url("127.0.0.1")))?;
    ensure!(came == sent, "{} other bytes came back", came.len());
    Ok(())
}

/// Whether somebody is turned away, soon and before the site has heard of it; with what words.
pub(super) fn refused(door: &Door<'_>, knock: impl FnOnce() -> Result<()>) -> Result<String> {
    let (before, started) = (door.site.visits(), Instant::now());
    let why = knock().err().context("the door was open")?;
    let took = started.elapsed();
    ensure!(took < REFUSAL, "the refusal took {took:?}");
    // A connection that was made would have been seen by then.
    thread::sleep(Duration::from_millis(50));
    ensure!(door.site.visits() == before, "the target was dialled");
    Ok(format!("{why:#}"))
}

pub(super) fn trial<'a>(
    visitor: Visitor,
    way: &str,
    end: &'static str,
    run: impl Fn() -> Result<()> + 'a,
) -> Trial<'a> {
    Trial { visitor, way: way.to_owned(), end, run: Box::new(run) }
}
