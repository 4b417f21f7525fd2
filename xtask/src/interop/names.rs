//! A name server on loopback that knows every name, over datagrams and streams.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::socks;

/// What every name stands for.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// How often [`TEXT`] is in the answer about texts: more than one packet of most links holds.
pub(super) const TEXTS: usize = 14;

/// As long as one text can be, nearly.
pub(super) const TEXT: [u8; 250] = [b'x'; 250];

/// Serves for as long as xtask runs, and says where.
pub(super) fn serve() -> Result<SocketAddr> {
    // The port that the kernel chose for streams may be taken for datagrams.
    for _ in 0..20 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let Ok(socket) = UdpSocket::bind(address) else { continue };
        thread::spawn(move || {
            let mut question = [0; 4096];
            while let Ok((len, from)) = socket.recv_from(&mut question) {
                if let Some(answer) = answer(&question[..len]) {
                    // Whoever misses it says so.
                    socket.send_to(&answer, from).ok();
                }
            }
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || converse(&stream).ok());
            }
        });
        return Ok(address);
    }
    bail!("no port is free for streams and datagrams")
}

fn converse(mut stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(socks::PATIENCE))?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut question)?;
    let answer = answer(&question).context("no question")?;
    let len = u16::try_from(answer.len())?.to_be_bytes();
    Ok(stream.write_all(&[&len[..], &answer].concat())?)
}

/// The answer to the one question of a message (RFC 1035, section 4).
fn answer(message: &[u8]) -> Option<Vec<u8>> {
    const TXT: [u8; 2] = [0, 16];
    let name_bytes = message.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = message.get(12..12 + name_bytes + 4)?;
    let kind = &question[name_bytes..][..2];
    let data =
        if kind == TXT { [&[250], &TEXT[..]].concat().repeat(TEXTS) } else { ADDRESS.octets().to_vec() };
    let mut answer = message[..2].to_vec();
    // A response, recursion wanted and available; one question, one answer.
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(question);
    // The name of the question, its type, the class of the internet, a minute.
    answer.extend([0xc0, 12]);
    answer.extend(kind);
    answer.extend([0, 1, 0, 0, 0, 60]);
    answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
    answer.extend(data);
    Some(answer)
}
