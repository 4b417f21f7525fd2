//! The real program with plugins of SIP003: a scripted one at each end, and Debian's simple-obfs where it is installed.
//!
//! The scripted plugin is this very test program, started with the arguments that make it run [`the_stand_in`] alone, and does what its
//! options say.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use running::{Umbra, assert_echoes, echo, eventually, exchange};

const SECRET: &str = "long-enough-for-both-ends";

// ---- the scripted plugin

/// Not a test when it runs among the others: it does something only when started as a plugin.
#[test]
fn the_stand_in() {
    let (Ok(far_host), Ok(near_host)) = (std::env::var("SS_REMOTE_HOST"), std::env::var("SS_LOCAL_HOST"))
    else {
        return;
    };
    let port = |name| std::env::var(name).unwrap();
    let far = format!("{far_host}:{}", port("SS_REMOTE_PORT"));
    let near = format!("{near_host}:{}", port("SS_LOCAL_PORT"));
    let options = std::env::var("SS_PLUGIN_OPTIONS").unwrap_or_default();
    let option = |wanted: &str| {
        let mut pairs = options.split(';').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
    };
    if let Some(path) = option("record") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{} {far} {near} {options}", std::process::id()).unwrap();
    }
    if let Some(path) = option("crash-while")
        && Path::new(&path).exists()
    {
        println!("about to crash, as told");
        std::process::exit(3);
    }
    if option("deaf").is_some() {
        let _never_followed =
            signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::default()).unwrap();
    }
    if option("silent").is_some() {
        loop {
            thread::park();
        }
    }
    if let Some(path) = option("await") {
        eventually(|| Path::new(&path).exists().then_some(()).ok_or(format!("no {path}")));
    }
    // At a server, what comes from the network goes to the door; at a client, what comes from us goes to the network.
    let (listen, target) = if option("server").is_some() { (far, near) } else { (near, far) };
    println!("listening");
    for stream in TcpListener::bind(listen).unwrap().incoming() {
        let (client, server) = (stream.unwrap(), TcpStream::connect(&target));
        let Ok(server) = server else { continue };
        let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || forward(client, server));
        thread::spawn(move || forward(back, forth));
    }
}

/// Copies one direction, its first 100 bytes in pieces of 7.
fn forward(mut from: TcpStream, mut to: TcpStream) {
    to.set_nodelay(true).unwrap();
    let mut buffer = [0; 16 * 1024];
    let mut copied = 0;
    loop {
        let room = if copied < 100 { 7 } else { buffer.len() };
        match from.read(&mut buffer[..room]) {
            Ok(0) | Err(_) => break,
            Ok(count) if to.write_all(&buffer[..count]).is_ok() => copied += count,
            Ok(_) => break,
        }
        if copied < 100 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let _gone_already = to.shutdown(Shutdown::Write);
}

/// A folder for configurations and records.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A configuration file with the stand-in as its plugin.
    fn config(&self, name: &str, server: &str, options: &str) -> String {
        let (host, port) = server.rsplit_once(':').unwrap();
        let stand_in = std::env::current_exe().unwrap();
        let text = format!(
            r#"{{"server": "{host}", "server_port": {port}, "local_port": 0, "method": "2022-blake3-aes-128-gcm",
                "password": "c2VjcmV0c2VjcmV0c2Vjcg==", "forbidden_ip": "", "plugin": "{}", "plugin_opts": "{options}",
                "plugin_args": ["--exact", "the_stand_in", "--nocapture"]}}"#,
            stand_in.display(),
        );
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What each start of a stand-in has recorded: its process, far, near, options.
    fn records(&self, name: &str) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(|line| line.split(' ').map(Into::into).collect()).collect()
    }

    fn record_option(&self, name: &str) -> String {
        format!("record={}", self.path(name).display())
    }
}

fn pid(record: &[String]) -> Pid {
    Pid::from_raw(record[0].parse().unwrap()).unwrap()
}

fn wait_until_gone(pid: Pid) {
    eventually(|| match test_kill_process(pid) {
        Err(_) => Ok(()),
        Ok(()) if is_zombie(pid) => Ok(()),
        Ok(()) => Err(format!("process {pid:?} is still there")),
    });
}

/// An orphan stays in the list until somebody reaps it, which in a container may be nobody.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..u32::try_from(len / 4).unwrap()).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

// ---- the scripted plugin at both ends

#[test]
fn a_plugin_at_each_end_carries_sessions_and_knows_its_place() {
    let folder = Folder::new();
    let config =
        folder.config("server.json", "127.0.0.1:0", &format!("server;{}", folder.record_option("server")));
    let mut server = Umbra::start(&["server", "-c", &config]);
    let options = format!("a=b\\\\;c;{}", folder.record_option("client"));
    let config = folder.config("client.json", &server.address.to_string(), &options);
    let mut client = Umbra::start(&["local", "-c", &config]);
    let target = echo();
    assert_echoes(client.address, target);
    let sent = pattern(8 << 20);
    assert!(exchange(client.address, target, &sent).unwrap() == sent, "8 MiB came back as they went");

    let [at_client, at_server] = ["client", "server"].map(|name| folder.records(name).pop().unwrap());
    assert_eq!(at_client[1], server.address.to_string(), "the far end of the client's is the server");
    assert_eq!(
        at_server[1],
        server.address.to_string(),
        "the server's listens where the server was to listen"
    );
    assert_eq!(at_client[3], options.replace("\\\\", "\\"), "options pass as they are");
    for record in [&at_client, &at_server] {
        assert!(record[2].starts_with("127.0.0.1:"), "{record:?}");
    }
    assert!(client.log().contains(&format!("for {} at {} started", at_client[1], at_client[2])));
    assert!(client.log().contains(": listening"), "its words are in the log:\n{}", client.log());
    for (umbra, record) in [(&mut client, at_client), (&mut server, at_server)] {
        let (code, took) = umbra.end();
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(2), "{took:?}");
        wait_until_gone(pid(&record));
        assert!(!umbra.log().contains("record="), "options are in no line of the log");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_first_session_after_the_announcement_finds_the_plugins_listening_however_late_they_are() {
    let folder = Folder::new();
    let start = |end: &str, server: &str, options: &str| {
        let go = folder.path(&format!("{end}.go"));
        let options = format!("await={};{};{options}", go.display(), folder.record_option(end));
        let config = folder.config(&format!("{end}.json"), server, &options);
        let mut umbra = Umbra::launch(&[end, "-c", &config], &[]);
        eventually(|| folder.records(end).pop().ok_or(format!("the plugin of {end} does not run")));
        assert!(!umbra.log().contains("starting "), "the doors are open too early:\n{}", umbra.log());
        fs::write(&go, "").unwrap();
        umbra.wait_for_door(end);
        umbra
    };
    let server = start("server", "127.0.0.1:0", "server");
    let client = start("local", &server.address.to_string(), "x=y");
    assert_eq!(exchange(client.address, echo(), b"at once").as_deref(), Ok(&b"at once"[..]));
    assert!(!client.log().contains("failing"), "{}", client.log());
}

#[test]
#[cfg(target_os = "linux")]
fn plugins_that_never_listen_are_told_of_and_hold_the_doors_for_five_seconds_in_all() {
    let folder = Folder::new();
    let config = folder.config(
        "client.json",
        "127.0.0.1:1",
        &format!("silent;deaf;{}", folder.record_option("client")),
    );
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"127.0.0.1\"", "[\"127.0.0.1\", \"127.0.0.2\"]")).unwrap();
    let began = Instant::now();
    let mut client = Umbra::start(&["local", "-c", &config]);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(9), "{took:?}");
    let starts = folder.records("client");
    assert_eq!(starts.len(), 2, "{starts:?}");
    for start in &starts {
        let told = format!(
            "for {} at {} does not listen after 5 s; sessions fail until it does",
            start[1], start[2]
        );
        assert!(client.log().contains(&told), "no «{told}» in:\n{}", client.log());
    }
    assert!(exchange(client.address, echo(), b"x").unwrap_err().contains("refused with"));
    let (code, took) = client.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(4), "both are killed together: {took:?}");
    starts.iter().for_each(|start| wait_until_gone(pid(start)));
}

#[test]
#[cfg(target_os = "linux")]
fn whoever_ends_us_while_a_plugin_is_waited_for_does_not_wait() {
    let folder = Folder::new();
    for (end, server) in [("local", "127.0.0.1:1"), ("server", "127.0.0.1:0")] {
        let options = format!("silent;{}", folder.record_option(end));
        let config = folder.config(&format!("{end}.json"), server, &options);
        let mut umbra = Umbra::launch(&[end, "-c", &config], &[]);
        let start = eventually(|| folder.records(end).pop().ok_or(format!("no plugin of {end}")));
        let (code, took) = umbra.end();
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(!umbra.log().contains("starting "), "{}", umbra.log());
        wait_until_gone(pid(&start));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_plugin_that_ends_before_it_listens_is_not_waited_for() {
    let folder = Folder::new();
    let crash = folder.path("crash");
    fs::write(&crash, "").unwrap();
    let config = folder.config("client.json", "127.0.0.1:1", &format!("crash-while={}", crash.display()));
    let began = Instant::now();
    let client = Umbra::start(&["local", "-c", &config]);
    assert!(began.elapsed() < Duration::from_secs(5));
    client.wait_for("nothing passes until it is started again in 1 s");
    assert!(!client.log().contains("does not listen"), "{}", client.log());
}

#[test]
fn a_plugin_that_ends_is_started_again_with_longer_and_longer_rests() {
    let folder = Folder::new();
    let config =
        folder.config("server.json", "127.0.0.1:0", &format!("server;{}", folder.record_option("server")));
    let server = Umbra::start(&["server", "-c", &config]);
    let crash = folder.path("crash");
    let options = format!("crash-while={};{}", crash.display(), folder.record_option("client"));
    let config = folder.config("client.json", &server.address.to_string(), &options);
    let client = Umbra::start(&["local", "-c", &config]);
    let target = echo();
    assert_echoes(client.address, target);

    fs::write(&crash, "").unwrap();
    let first = folder.records("client").pop().unwrap();
    kill_process(pid(&first), Signal::KILL).unwrap();
    let ended = "ended by itself: signal: 9 (SIGKILL); nothing passes until it is started again in 1 s";
    client.wait_for(ended);
    let refused = exchange(client.address, target, b"x").unwrap_err();
    assert!(refused.contains("refused with"), "{refused}");
    client.wait_for("about to crash, as told");
    client.wait_for("ended by itself: exit status: 3; nothing passes until it is started again in 2 s");
    fs::remove_file(&crash).unwrap();
    assert_echoes(client.address, target);
    let starts = folder.records("client");
    assert_eq!(starts.len(), 3, "{starts:?}");
    let [before, after] = [&starts[0], &starts[2]].map(|record| record[2].clone());
    assert!(before != after, "a plugin that has ended gets another port: {starts:?}");
    let log = client.log();
    let (words, end) = (log.find("about to crash").unwrap(), log.find("exit status: 3").unwrap());
    assert!(words < end, "its last words come before its end:\n{log}");
}

#[test]
fn plugins_come_and_go_with_the_document_that_names_their_servers() {
    let folder = Folder::new();
    let config = folder.config("server.json", "127.0.0.1:0", "server");
    let server = Umbra::start(&["server", "-c", &config]);
    // A document may name only what is known as a plugin, so the stand-in goes by such a name.
    let program = folder.path("obfs-local");
    let stand_in = std::env::current_exe().unwrap();
    fs::write(&program, format!("#!/bin/sh\nexec {} --exact the_stand_in --nocapture\n", stand_in.display()))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let entry = |name: &str| {
        let options = format!("await={};{}", folder.path("go").display(), folder.record_option(name));
        let port = server.address.port();
        format!(
            r#"{{"id": "{name}", "server": "127.0.0.1", "server_port": {port}, "method": "2022-blake3-aes-128-gcm",
                "password": "c2VjcmV0c2VjcmV0c2Vjcg==", "plugin": "obfs-local", "plugin_opts": "{options}"}}"#
        )
    };
    let document = folder.path("document.json");
    let list = |names: &[&str]| {
        let entries: Vec<_> = names.iter().map(|name| entry(name)).collect();
        let text = format!(r#"{{"version": 1, "servers": [{}]}}"#, entries.join(","));
        // Nobody reads half of it.
        fs::write(folder.path("next"), text).unwrap();
        fs::rename(folder.path("next"), &document).unwrap();
    };
    list(&["a", "b"]);
    fs::write(folder.path("go"), "").unwrap();
    let config = folder.path("client.json");
    let online = format!(r#"{{"config_url": "{}", "update_interval": 1}}"#, document.display());
    fs::write(&config, format!(r#"{{"local_port": 0, "online_config": {online}}}"#)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", folder.0.path().display());
    let mut client = Umbra::start_with(&["local", "-c", config.to_str().unwrap()], &[("PATH", &path)]);
    let target = echo();
    assert_echoes(client.address, target);

    fs::remove_file(folder.path("go")).unwrap();
    list(&["c", "b"]);
    let first = |name| {
        eventually(|| folder.records(name).first().map(|record| pid(record)).ok_or(format!("no {name}")))
    };
    let [a, b, c] = ["a", "b", "c"].map(first);
    let at_once = || assert_eq!(exchange(client.address, target, b"x").as_deref(), Ok(&b"x"[..]));
    at_once();
    if cfg!(target_os = "linux") {
        assert!(!client.log().contains("1 of them new"), "c does not listen yet:\n{}", client.log());
    }
    fs::write(folder.path("go"), "").unwrap();
    client.wait_for("2 servers, 1 of them new, 1 gone");
    at_once();
    wait_until_gone(a);
    for (name, pid) in [("b", b), ("c", c)] {
        assert!(test_kill_process(pid).is_ok(), "{name} goes on");
        assert_eq!(folder.records(name).len(), 1, "{name} was started once");
    }
    client.end();
    [b, c].into_iter().for_each(wait_until_gone);
}

#[test]
fn a_server_with_its_plugin_gone_serves_again_once_it_is_back() {
    let folder = Folder::new();
    let config =
        folder.config("server.json", "127.0.0.1:0", &format!("server;{}", folder.record_option("server")));
    let server = Umbra::start(&["server", "-c", &config]);
    let config = folder.config("client.json", &server.address.to_string(), "x=y");
    let client = Umbra::start(&["local", "-c", &config]);
    let target = echo();
    assert_echoes(client.address, target);
    kill_process(pid(&folder.records("server")[0]), Signal::TERM).unwrap();
    server.wait_for("ended by itself: signal: 15 (SIGTERM); nothing passes until it is started again in 1 s");
    assert_echoes(client.address, target);
    let starts = folder.records("server");
    assert_eq!(starts[0][1..], starts[1][1..], "it is in front of the same door at the same address");
}

#[test]
fn a_plugin_that_does_not_listen_to_reason_is_killed() {
    let folder = Folder::new();
    let options = format!("deaf;{}", folder.record_option("client"));
    let config = folder.config("client.json", "127.0.0.1:1", &options);
    let mut client = Umbra::start(&["local", "-c", &config]);
    client.wait_for(": listening");
    let plugin = pid(&folder.records("client")[0]);
    let (code, took) = client.end();
    assert_eq!(code, Some(0));
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
    client.wait_for("does not end when told to; killing it");
    wait_until_gone(plugin);
}

#[test]
fn no_plugin_stays_behind_when_the_process_is_killed() {
    let folder = Folder::new();
    let options = format!("deaf;{}", folder.record_option("client"));
    let config = folder.config("client.json", "127.0.0.1:1", &options);
    let mut client = Umbra::start(&["local", "-c", &config]);
    client.wait_for(": listening");
    client.child.kill().unwrap();
    client.child.wait().unwrap();
    wait_until_gone(pid(&folder.records("client")[0]));
}

#[test]
fn a_plugin_that_is_not_there_keeps_everything_from_starting() {
    for (end, server) in [("local", "127.0.0.1:1"), ("server", "127.0.0.1:0"), ("check", "127.0.0.1:1")] {
        let args =
            ["-s", server, "-k", SECRET, "--plugin", "no-such-plugin", "--plugin-opts", "key=hunter2hunter2"];
        let output = Command::new(env!("CARGO_BIN_EXE_umbra")).arg(end).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let complaint =
            "error: --plugin: there is no program no-such-plugin in PATH; install the plugin, or give";
        assert!(said.contains(complaint), "{said}");
        assert!(!said.contains("starting") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_public_address_that_is_taken_is_told_before_any_plugin_starts() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let address = busy.local_addr().unwrap().to_string();
    let config =
        folder.config("server.json", &address, &format!("server;{}", folder.record_option("server")));
    let output = Command::new(env!("CARGO_BIN_EXE_umbra")).args(["server", "-c", &config]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("cannot listen on {address}: address in use")), "{said}");
    assert!(folder.records("server").is_empty());
}

// ---- real ones

/// Carries 8 MiB through `at_client` and `at_server`, each a program with its options, if both are installed.
fn carry_through(at_client: [&str; 2], at_server: [&str; 2], package: &str) {
    for program in [at_client[0], at_server[0]] {
        if Command::new(program).arg("-h").output().is_err() {
            println!("skipped: {program} is not installed; apt-get install {package}");
            return;
        }
    }
    let target = echo();
    let sent = pattern(8 << 20);
    let common = ["-m", "2022-blake3-aes-128-gcm", "-k", "c2VjcmV0c2VjcmV0c2Vjcg==", "--plugin"];
    let server = [
        &["server", "--forbidden-ip=", "-s", "127.0.0.1:0"][..],
        &common,
        &[at_server[0], "--plugin-opts", at_server[1]],
    ];
    let server = Umbra::start(&server.concat());
    let address = server.address.to_string();
    let client =
        [&["local", "-l", "0", "-s", &address][..], &common, &[at_client[0], "--plugin-opts", at_client[1]]];
    let client = Umbra::start(&client.concat());
    assert_echoes(client.address, target);
    assert!(exchange(client.address, target, &sent).unwrap() == sent, "8 MiB came back as they went");
}

#[test]
fn datagrams_pass_beside_the_plugins_of_both_ends_where_they_are_asked_for() {
    let folder = Folder::new();
    let config = folder.config("server.json", "127.0.0.1:0", "server");
    let server = Umbra::start(&["server", "-u", "-c", &config]);
    let config = folder.config("client.json", &server.address.to_string(), &folder.record_option("client"));
    let client = Umbra::start(&["local", "-u", "-c", &config]);
    client.wait_for("datagrams do not go through the plugin");
    assert_echoes(client.address, echo());
    assert_eq!(folder.records("client").len(), 1, "streams go through the plugin");
    let mut control = TcpStream::connect(client.address).unwrap();
    control.set_read_timeout(Some(running::PATIENCE)).unwrap();
    control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..6], [5, 0, 5, 0, 0, 1]);
    let (program, target) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = target.local_addr().unwrap().port().to_be_bytes();
    let relay = (client.address.ip(), u16::from_be_bytes([reply[10], reply[11]]));
    let datagram = [&[0, 0, 0, 1, 127, 0, 0, 1][..], &port, b"beside"].concat();
    program.send_to(&datagram, relay).unwrap();
    target.set_read_timeout(Some(running::PATIENCE)).unwrap();
    let mut came = [0; 64];
    let (len, _) = target.recv_from(&mut came).unwrap();
    assert_eq!(&came[..len], b"beside");
}

#[test]
fn simple_obfs_carries_8_mib_in_both_modes() {
    for options in ["obfs=http", "obfs=tls;obfs-host=a.example"] {
        carry_through(["obfs-local", options], ["obfs-server", options], "simple-obfs");
    }
}

#[test]
fn v2ray_plugin_carries_8_mib() {
    let (client, server) =
        (["ss-v2ray-plugin", "host=a.example;path=/x"], ["ss-v2ray-plugin", "server;path=/x"]);
    carry_through(client, server, "shadowsocks-v2ray-plugin");
}
