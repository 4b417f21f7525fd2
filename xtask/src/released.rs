//! The program as people build it. Everything else here runs a build for tests, in which some libraries check more, and say no where a
//! release build goes on or ends otherwise.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::child::{Guard, Program, wait_until};
use crate::socks;
use crate::tally::Tally;
use crate::workspace;

/// Tries it, and prints the count.
pub(crate) fn run() -> Result<()> {
    let tally = tally();
    println!("{tally}");
    tally.verdict()
}

/// Tries the release build: it says what the build for tests says, and `umbra up` carries a session. Builds both.
pub(crate) fn tally() -> Tally {
    let builds =
        workspace::build_umbra().and_then(|release| Ok((release, workspace::build_umbra_for_tests()?)));
    let (release, tested) = match builds {
        Ok(builds) => builds,
        Err(why) => {
            println!("release build: FAILED: {why:#}");
            return Tally::step(false);
        }
    };
    let mut tally = step("release build, umbra up", &up(&release));
    for line in LINES {
        tally += step(&format!("release build, umbra {}", line.join(" ")), &same(line, &release, &tested));
    }
    tally
}

fn step(name: &str, outcome: &Result<()>) -> Tally {
    match outcome {
        Ok(()) => println!("{name}: ok"),
        Err(why) => println!("{name}: FAILED: {why:#}"),
    }
    Tally::step(outcome.is_ok())
}

/// As in the README, and a session through both ends. Our own target is on loopback, where a server leads nobody unless told to.
fn up(umbra: &Path) -> Result<()> {
    let args = ["up", "--forbidden-ip="].map(String::from).into();
    let mut running = Guard::start(Program::new("umbra up".into(), umbra.into(), args), None)?;
    let words = "--socks5-hostname ";
    let door = wait_until(Duration::from_secs(20), || {
        let log = running.log();
        let address = log.split_once(words).and_then(|(_, rest)| rest.split_whitespace().next());
        address
            .and_then(|address| address.parse().ok())
            .map(Some)
            .or_else(|| (!running.is_alive()).then_some(None))
    });
    let door: SocketAddr =
        door.flatten().with_context(|| format!("it does not say where it is\n{}", running.log_tail(40)))?;
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = target.local_addr()?;
    let answering = thread::spawn(move || -> Result<()> {
        let (mut peer, _) = target.accept()?;
        let mut said = [0; QUESTION.len()];
        peer.read_exact(&mut said)?;
        peer.write_all(&said)?;
        Ok(())
    });
    let mut session =
        socks::connect(door, address).with_context(|| format!("no session\n{}", running.log_tail(40)))?;
    session.set_read_timeout(Some(socks::PATIENCE))?;
    session.write_all(QUESTION)?;
    let mut heard = [0; QUESTION.len()];
    session.read_exact(&mut heard)?;
    ensure!(heard == *QUESTION, "something else came back");
    answering.join().map_err(|_| anyhow::anyhow!("the target panicked"))?
}

/// Whether both builds say the same to a command line, and end alike.
fn same(line: &[&str], release: &Path, tested: &Path) -> Result<()> {
    let [(ended, said), (ended_tested, said_tested)] = [said(line, release)?, said(line, tested)?];
    ensure!(
        ended == ended_tested && said == said_tested,
        "it ends with {ended:?} and says:\n{said}\nand the build for tests with {ended_tested:?}:\n{said_tested}"
    );
    Ok(())
}

fn said(line: &[&str], umbra: &Path) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(umbra);
    let output =
        command.args(line).stdin(Stdio::null()).output().with_context(|| workspace::shown(&command))?;
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    Ok((output.status.code(), said.concat()))
}

const QUESTION: &[u8; 10] = b"still here";

/// Command lines whose answer is always the same: every command, told too little, too much and what is wrong.
const LINES: &[&[&str]] = &[
    &["--version"],
    &["--help"],
    &["no-such-command"],
    &["up", "--help"],
    &["up", "--no-such-flag"],
    &["up", "--forbidden-ip=10.0.0.0/33"],
    &["local", "--help"],
    &["local", "-s", "127.0.0.1:1", "-k"],
    &["server", "--help"],
    &["server", "-m", "no-such-method", "-k", "x", "-s", "127.0.0.1:0"],
    &["tunnel", "--help"],
    &["tunnel", "-s", "127.0.0.1:1", "-m", "aes-256-gcm", "-k", "x"],
    &["key", "--help"],
    &["key", "no-such-method"],
    &["check", "--help"],
    &["check", "-c", "/no/such/file"],
    &["check", "-s", "127.0.0.1:8388", "-m", "aes-256-gcm", "-k", "long-enough-to-be-good"],
    &["url", "--help"],
    &["url", "decode", "ss://YWVzLTI1Ni1nY206c2VjcmV0@192.0.2.1:8388#a%20name"],
    &["url", "decode", "ss://nothing"],
    &["route", "--help"],
    &["route", "--direct", "127.0.0.1:1"],
    &["probe", "--help"],
    &["probe"],
];
