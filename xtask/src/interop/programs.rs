//! The programs that knock on our doors, each run once to its end.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::site::{PICTURES, Site};
use crate::child::{Guard, Program};
use crate::peers::{free_port, in_owners_path};
use crate::{socks, workspace};

/// A program that people put behind a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visitor {
    /// Speaks every proxy protocol.
    Curl,
    /// Bytes from the one end to the other.
    Ncat,
    /// Leads other programs through a proxy behind their backs.
    Proxychains,
    /// Through ncat.
    Ssh,
    /// Asks name servers.
    Dig,
    /// A browser.
    Chromium,
    /// An HTTP cache that reaches the web through SOCKS, and curl before it.
    TrafficServer,
    /// A few lines of this task.
    Own,
}

impl Visitor {
    /// Its name, which is also that of the executable.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Ncat => "ncat",
            Self::Proxychains => "proxychains4",
            Self::Ssh => "ssh",
            Self::Dig => "dig",
            Self::Chromium => "chromium",
            Self::TrafficServer => "traffic-server",
            Self::Own => "(our own)",
        }
    }

    /// Why it cannot be run here.
    pub(super) fn lack(self) -> Option<String> {
        let needs: &[(&str, &str)] = match self {
            Self::Curl => &[("curl", "curl")],
            Self::Ncat => &[("ncat", "ncat")],
            Self::Proxychains => &[("proxychains4", "proxychains4"), ("curl", "curl")],
            Self::Ssh => &[("ssh", "openssh-client"), ("ncat", "ncat"), ("ssh-keygen", "openssh-client")],
            Self::Dig => &[("dig", "bind9-dnsutils")],
            Self::Chromium => &[("chromium", "chromium")],
            Self::TrafficServer => &[("traffic_server", "trafficserver"), ("curl", "curl")],
            Self::Own => &[],
        };
        let (name, package) = needs.iter().find(|(name, _)| in_owners_path(name).is_none())?;
        Some(format!("{name} is missing: apt-get install {package}"))
    }
}

/// What curl downloads from `url`; it asks nobody else where proxies are.
pub(super) fn curl(options: &[&str], url: &str) -> Result<Vec<u8>> {
    let mut command = bounded("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", ""]);
    // What a proxy answered to CONNECT is not always in curl's own words.
    command.args(["--write-out", "%{stderr}%{http_connect}"]).args(options);
    ended(command.args(["--max-time", &seconds()]).arg(url), &[])
}

/// The records that dig is told of by the name server at `server`; `options` come before the name.
pub(super) fn dig(server: SocketAddr, options: &[&str]) -> Result<String> {
    let mut command = bounded("dig");
    command.args(["-r", "+short", "+time=3", "+tries=3", &format!("@{}", server.ip())]);
    command.args(["-p", &server.port().to_string()]).args(options).arg("host.example");
    Ok(String::from_utf8_lossy(&ended(&mut command, &[])?).into_owned())
}

/// What ncat hears from the site when it is asked for the large page.
pub(super) fn ncat(options: &[&str], site: &Site) -> Result<Vec<u8>> {
    let mut command = bounded("ncat");
    command.args(options).args(["127.0.0.1", &site.port().to_string()]);
    let answer = ended(&mut command, b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no answer to ncat")?;
    Ok(answer[head + 4..].to_vec())
}

/// What curl downloads from `url` when proxychains leads it; `proxy` is a line of its list.
pub(super) fn proxychains(proxy: &str, url: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("proxychains.conf");
    fs::write(&config, format!("strict_chain\n[ProxyList]\n{proxy}\n"))?;
    let mut command = bounded("proxychains4");
    command.arg("-q").arg("-f").arg(&config).args(["curl", "--silent", "--show-error", "--fail"]);
    ended(command.args(["--noproxy", "*", url]), &[])
}

/// Shows the gallery in a browser, and checks that every picture was asked for and came.
pub(super) fn browse(proxy: &str, site: &Site) -> Result<()> {
    let before = site.pictures();
    let folder = tempfile::tempdir()?;
    let mut command = bounded("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.args(["--no-first-run", "--disable-background-networking", "--disable-component-update"]);
    command.args(["--disable-sync", "--no-pings", "--proxy-bypass-list=<-loopback>"]);
    // Whatever else a browser asks for by itself stays on this machine.
    command.arg("--host-rules=MAP * 127.0.0.1:9, EXCLUDE 127.0.0.1");
    command.arg(format!("--user-data-dir={}", folder.path().display()));
    command.arg(format!("--proxy-server={proxy}")).arg("--dump-dom");
    let page = ended(command.arg(format!("{}gallery", site.url("127.0.0.1"))), &[])?;
    let shown = String::from_utf8_lossy(&page);
    let said = format!("<p id=\"count\">{PICTURES}</p>");
    ensure!(shown.contains(&said), "not all pictures came: {:.80}", shown.trim());
    let asked = site.pictures() - before;
    ensure!(asked == PICTURES, "{asked} pictures were asked for, and {PICTURES} shown");
    Ok(())
}

/// An sshd of our own that lets one key in.
#[derive(Debug)]
pub(super) struct Shell {
    folder: TempDir,
    address: SocketAddr,
    _server: Guard,
}

impl Shell {
    /// Starts it on loopback, with keys made for it.
    pub(super) fn start() -> Result<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().map(Path::new);
        let sshd = sshd.into_iter().find(|path| path.is_file());
        let sshd = sshd.context("sshd is missing: apt-get install openssh-server")?;
        if nix::unistd::Uid::effective().is_root() {
            // Where it changes its root to; services make it when they start.
            fs::create_dir_all("/run/sshd").context("a folder that sshd wants")?;
        }
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        for key in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            ended(command.args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]), &[])?;
        }
        let port = free_port()?;
        let options = [
            "ListenAddress=127.0.0.1".to_owned(),
            format!("Port={port}"),
            format!("AuthorizedKeysFile={}", file("user.pub")),
            "PidFile=none".to_owned(),
            "StrictModes=no".to_owned(),
            "UsePAM=no".to_owned(),
            "PasswordAuthentication=no".to_owned(),
            "KbdInteractiveAuthentication=no".to_owned(),
        ];
        let mut args: Vec<String> =
            ["-D", "-e", "-f", "/dev/null", "-h", &file("host")].map(str::to_owned).into();
        args.extend(options.into_iter().flat_map(|option| ["-o".to_owned(), option]));
        let mut server = Guard::start(Program::new("sshd".to_owned(), sshd.to_owned(), args), None)?;
        let address = server.listening()?;
        Ok(Self { folder, address, _server: server })
    }

    /// Sends `bytes` to `cat` at the other side, through what `proxy_command` starts, and checks what comes back.
    pub(super) fn echo(&self, proxy_command: &str, bytes: &[u8]) -> Result<()> {
        let user =
            nix::unistd::User::from_uid(nix::unistd::Uid::effective())?.context("a user without a name")?;
        let mut command = bounded("ssh");
        command.args(["-F", "none", "-T", "-i"]).arg(self.folder.path().join("user"));
        let options = [
            "IdentitiesOnly=yes",
            "UserKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=no",
            "LogLevel=ERROR",
            "BatchMode=yes",
            &format!("ProxyCommand={proxy_command}"),
        ];
        command.args(options.into_iter().flat_map(|option| ["-o", option]));
        command.args(["-p", &self.address.port().to_string()]);
        command.arg(format!("{}@{}", user.name, Ipv4Addr::LOCALHOST)).arg("cat");
        let came = ended(&mut command, bytes)?;
        ensure!(came == bytes, "{} other bytes came", came.len());
        Ok(())
    }
}

/// A program that is ended when it takes too long.
fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args([&(3 * socks::PATIENCE.as_secs()).to_string(), program]);
    command
}

fn seconds() -> String {
    socks::PATIENCE.as_secs().to_string()
}

/// Runs a command to a good end with `input`, and says what it wrote.
fn ended(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| workspace::shown(command))?;
    let mut stdin = child.stdin.take().context("no input")?;
    let output = thread::scope(|scope| {
        // Who does not take all of it says why by itself.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output()
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", workspace::shown(command), output.status, said.trim());
    }
    Ok(output.stdout)
}
