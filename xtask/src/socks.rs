//! A blocking SOCKS5 client: what a program behind the proxy does before its own bytes, and around its datagrams.

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
    Ok(ask(proxy, &[], &request(target))?.0)
}

/// Dials `target` through the proxy, which is sent `header` before all else.
pub(crate) fn connect_after(header: &[u8], proxy: SocketAddr, target: SocketAddr) -> Result<TcpStream> {
    Ok(ask(proxy, header, &request(target))?.0)
}

/// A relay of datagrams that a proxy has opened: it lasts as long as the control connection.
#[derive(Debug)]
pub(crate) struct Association {
    /// Where the proxy takes datagrams.
    pub(crate) relay: SocketAddr,
    /// The connection that asked for it.
    _control: TcpStream,
}

/// Asks the proxy to relay datagrams.
pub(crate) fn associate(proxy: SocketAddr) -> Result<Association> {
    let any = SocketAddr::new(if proxy.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0);
    let mut asked = vec![5, 3, 0];
    asked.extend(address_block(any));
    let (control, bound) = ask(proxy, &[], &asked)?;
    // Where it says that it is anywhere, it is where it was asked.
    let ip = if bound.ip().is_unspecified() { proxy.ip() } else { bound.ip() };
    Ok(Association { relay: SocketAddr::new(ip, bound.port()), _control: control })
}

/// A place where a proxy waits for one connection in our stead.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Where it waits.
    pub(crate) address: SocketAddr,
    /// The connection that asked for it, and becomes the session.
    control: TcpStream,
}

/// Asks the proxy to wait for a connection from `expected`.
pub(crate) fn bind(proxy: SocketAddr, expected: SocketAddr) -> Result<Waiting> {
    let asked = [vec![5, 2, 0], address_block(expected)].concat();
    let (control, bound) = ask(proxy, &[], &asked)?;
    let ip = if bound.ip().is_unspecified() { proxy.ip() } else { bound.ip() };
    Ok(Waiting { address: SocketAddr::new(ip, bound.port()), control })
}

impl Waiting {
    /// Hears of who has come: the session with it, and its address.
    pub(crate) fn visitor(mut self) -> Result<(TcpStream, SocketAddr)> {
        let visitor = read_reply(&mut self.control).context("the second answer to BIND")?;
        Ok((self.control, visitor))
    }
}

/// What stands before the payload of a datagram for `target`.
pub(crate) fn datagram_head(target: SocketAddr) -> Vec<u8> {
    [vec![0; 3], address_block(target)].concat()
}

/// Where a datagram from the proxy comes from, unless that is called by a name, and its payload.
pub(crate) fn read_datagram(datagram: &[u8]) -> Result<(Option<SocketAddr>, &[u8])> {
    let Some(([0, 0, 0], block)) = datagram.split_first_chunk() else {
        bail!("no head of a datagram: {:?}", &datagram[..datagram.len().min(32)]);
    };
    if let Some((3, rest)) = block.split_first() {
        let (len, rest) = rest.split_first().context("the length of a name")?;
        return Ok((None, rest.get(usize::from(*len) + 2..).context("a name and a port")?));
    }
    let (from, payload) = read_address(block)?;
    Ok((Some(from), payload))
}

/// The CONNECT request for `target`.
pub(crate) fn request(target: SocketAddr) -> Vec<u8> {
    [vec![5, 1, 0], address_block(target)].concat()
}

/// An address as requests, replies and datagrams have it.
pub(crate) fn address_block(address: SocketAddr) -> Vec<u8> {
    let mut block = match address.ip() {
        IpAddr::V4(ip) => [&[1], &ip.octets()[..]].concat(),
        IpAddr::V6(ip) => [&[4], &ip.octets()[..]].concat(),
    };
    block.extend_from_slice(&address.port().to_be_bytes());
    block
}

/// The same for a name.
pub(crate) fn name_block(name: &str, port: u16) -> Result<Vec<u8>> {
    let len = u8::try_from(name.len()).context("the length of a name")?;
    Ok([&[3, len], name.as_bytes(), &port.to_be_bytes()].concat())
}

/// The address at the start of `bytes`, and what follows it.
fn read_address(bytes: &[u8]) -> Result<(SocketAddr, &[u8])> {
    let (ip, rest): (IpAddr, _) = match bytes.split_first() {
        Some((1, rest)) => rest.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest)),
        Some((4, rest)) => rest.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest)),
        Some(_) | None => None,
    }
    .context("an address of numbers")?;
    let (port, rest) = rest.split_first_chunk().context("a port")?;
    Ok((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
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

/// Says `header` and `request`, and hears the address that the proxy has bound.
fn ask(proxy: SocketAddr, header: &[u8], request: &[u8]) -> Result<(TcpStream, SocketAddr)> {
    let mut stream = TcpStream::connect(proxy).context("connect to the proxy")?;
    be_patient(&stream)?;
    stream.write_all(header)?;
    stream.write_all(&GREETING)?;
    let mut choice = [0; 2];
    stream.read_exact(&mut choice).context("the proxy's choice of login")?;
    ensure!(choice == [5, 0], "the proxy wants another login: {choice:?}");
    stream.write_all(request)?;
    let bound = read_reply(&mut stream)?;
    Ok((stream, bound))
}

fn read_reply(stream: &mut TcpStream) -> Result<SocketAddr> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).context("the proxy's reply")?;
    let mut rest = vec![0; reply_bytes(&head)? - head.len()];
    stream.read_exact(&mut rest).context("the rest of the reply")?;
    Ok(read_address(&[&head[3..], &rest].concat())?.0)
}
