//! A blocking SOCKS5 client: what a program behind the proxy does before its own bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long any single answer may take before a run is called broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The greeting: version 5, one way to log in, which is none.
pub(crate) const GREETING: [u8; 3] = [5, 1, 0];

/// Dials `target` through the proxy.
pub(crate) fn connect(proxy: SocketAddr, target: SocketAddr) -> Result<TcpStream> {
    negotiate(proxy, &[], &request(target))
}

/// Dials `target` through the proxy, which is sent `header` before all else.
pub(crate) fn connect_after(header: &[u8], proxy: SocketAddr, target: SocketAddr) -> Result<TcpStream> {
    negotiate(proxy, header, &request(target))
}

/// The CONNECT request for `target`.
pub(crate) fn request(target: SocketAddr) -> Vec<u8> {
    let mut request = vec![5, 1, 0];
    match target.ip() {
        IpAddr::V4(ip) => {
            request.push(1);
            request.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            request.push(4);
            request.extend_from_slice(&ip.octets());
        }
    }
    request.extend_from_slice(&target.port().to_be_bytes());
    request
}

/// How long the reply is, once its first four bytes are there.
pub(crate) fn reply_bytes(head: &[u8]) -> Result<usize> {
    match head {
        [5, 0, _, 1, ..] => Ok(4 + 4 + 2),
        [5, 0, _, 4, ..] => Ok(4 + 16 + 2),
        [5, code, ..] => bail!("the proxy answered with code {code}"),
        head => bail!("not a SOCKS5 reply: {head:?}"),
    }
}

/// Accepts a connection, unless none comes in time.
pub(crate) fn accept(listener: &TcpListener, patience: Duration) -> Result<TcpStream> {
    let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).context("a patience that poll can hold")?;
    ensure!(poll(&mut waiting, timeout)? == 1, "no session reached the target within {patience:?}");
    let (stream, _) = listener.accept().context("accept as a target")?;
    be_patient(&stream)?;
    Ok(stream)
}

fn be_patient(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}

fn negotiate(proxy: SocketAddr, header: &[u8], request: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).context("connect to the proxy")?;
    be_patient(&stream)?;
    stream.write_all(header)?;
    stream.write_all(&GREETING)?;
    let mut choice = [0; 2];
    stream.read_exact(&mut choice).context("the proxy's choice of login")?;
    ensure!(choice == [5, 0], "the proxy wants another login: {choice:?}");
    stream.write_all(request)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).context("the proxy's reply")?;
    let mut rest = vec![0; reply_bytes(&head)? - head.len()];
    stream.read_exact(&mut rest).context("the rest of the reply")?;
    Ok(stream)
}
