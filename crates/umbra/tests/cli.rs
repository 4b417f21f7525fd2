//! The real program, from its command line to its exit code.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "running/foreground.rs"]
mod foreground;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use foreground::{Config, Running};

fn umbra(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_umbra")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn umbra_in(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Running {
    fn end_with(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

/// Serves one connection: sends back what comes, until its end.
fn echo_once() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut copy = stream.try_clone().unwrap();
        std::io::copy(&mut copy, &mut stream).unwrap();
    });
    address
}

/// Connects to `target` through the SOCKS5 door at `door`.
fn connect_through(door: &str, target: SocketAddr) -> TcpStream {
    let SocketAddr::V4(target) = target else { panic!("an IPv4 target is wanted") };
    let mut stream = TcpStream::connect(door).unwrap();
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut request = vec![5, 1, 0, 1];
    request.extend(target.ip().octets());
    request.extend(target.port().to_be_bytes());
    let mut choice = [0; 2];
    stream.read_exact(&mut choice).unwrap();
    assert_eq!(choice, [5, 0]);
    stream.write_all(&request).unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..2], [5, 0]);
    stream
}

fn assert_echoes(door: &str) {
    let mut stream = connect_through(door, echo_once());
    stream.write_all(b"there and back").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"there and back");
}

#[test]
fn version_and_help_go_to_the_standard_output() {
    let version = umbra(&["--version"]);
    assert_eq!(text(&version.stdout), format!("umbra {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(version.status.code(), Some(0));
    let help = umbra(&["--help"]);
    for word in ["local", "server", "tunnel", "up", "key", "check", "route", "probe", "url"] {
        assert!(text(&help.stdout).contains(word));
    }
    let help = text(&umbra(&["local", "--help"]).stdout);
    for flag in [
        "-c",
        "-s",
        "-p",
        "-k",
        "-m",
        "-b",
        "-l",
        "-t",
        "-v",
        "-q",
        "--server-url",
        "--fast-open",
        "--no-delay",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn a_bad_command_line_is_told_on_the_standard_error_with_exit_code_2() {
    for args in [
        &[][..],
        &["frob"],
        &["local", "--bogus"],
        &["local", "-p", "abc"],
        &["local", "-p", "70000"],
        &["local", "stray"],
        &["local", "--server-url", "ss://x", "-s", "a"],
        &["server", "-b", "127.0.0.1"],
        &["key"],
        &["key", "aes-256-cfb64"],
    ] {
        let output = umbra(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn links_named_sslocal_ssserver_and_sstunnel_are_those_programs() {
    let folder = TempDir::new().unwrap();
    for (name, complaint) in [
        ("sslocal", "server: missing"),
        ("ssserver", "password: missing"),
        ("sstunnel", "forward_address: missing"),
    ] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_umbra"), &link).unwrap();
        let output = Command::new(&link).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(complaint), "{name}");
        let version = Command::new(&link).arg("--version").output().unwrap();
        assert_eq!(text(&version.stdout), format!("{name} (umbra) {}\n", env!("CARGO_PKG_VERSION")));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_umbra")).arg0("sslocal").output().unwrap();
    assert!(text(&output.stderr).contains("server: missing"), "the name counts, not the file");
}

#[test]
fn a_fresh_key_is_taken_as_it_is() {
    for method in ["2022-blake3-aes-256-gcm", "2022-blake3-aes-128-gcm", "aes-256-gcm"] {
        let output = umbra(&["key", method]);
        assert_eq!(output.status.code(), Some(0));
        let key = text(&output.stdout);
        let check = umbra(&["check", "--as", "server", "-m", method, "-k", key.trim_end()]);
        assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    }
}

#[test]
fn no_key_is_made_for_a_method_that_is_insecure() {
    for method in ["rc4-md5", "table", "none", "AES-256-CFB"] {
        let output = umbra(&["key", method]);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{method}");
        let told = text(&output.stderr);
        assert!(told.ends_with("; make a key with: umbra key chacha20-ietf-poly1305\n"), "{told}");
    }
    let short = umbra(&["check", "--as", "server", "-m", "aes-256-cfb", "-k", "short"]);
    assert!(text(&short.stderr).contains("make one with: umbra key chacha20-ietf-poly1305\n"));
}

#[test]
fn check_tells_everything_and_starts_nothing() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port();
    let bad = Config::new(
        r#"{"servers": [{"server": "a", "password": "mypassword"},
                        {"server": "b", "method": "2022-blake3-aes-256-gcm", "password": "AAAAAAAAAAAAAAAAAAAAAA=="}],
            "timeot": 1, "acl": "x", "timeout": 0, "locals": [{}]}"#,
    );
    let output = umbra(&["check", bad.path()]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for (kind, line, rest) in [
        ("error", 3, "acl: x cannot be read"),
        ("error", 3, "timeout: 0 is no idle time"),
        ("error", 1, "servers[0].password: an example from the documentation"),
        (
            "error",
            2,
            "servers[1].password: 2022-blake3-aes-256-gcm wants 32 bytes in base64, got 16; make one with: umbra key 2022-blake3-aes-256-gcm\n",
        ),
        ("warning", 3, "timeot: unknown key, left aside; did you mean timeout?"),
    ] {
        let expected = format!("{kind}: {}:{line}: {rest}", bad.path());
        assert!(told.contains(&expected), "{expected} in {told}");
    }
    assert!(text(&output.stdout).contains("bad for umbra local (errors: 4, warnings: 1)"));

    let good = Config::new(&format!(
        r#"{{"server": "a", "password": "long-enough", "local_port": {port}, }} // fine"#
    ));
    let output = umbra(&["check", "-c", good.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("good for umbra local (errors: 0, warnings: 0)"));
}

#[test]
fn a_file_that_cannot_be_read_names_itself_and_the_place() {
    let broken = Config::new("{\n  \"server\": \"a\",\n  \"port\" 1\n}");
    let output = umbra(&["server", "-c", broken.path()]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("error: {}:3:", broken.path());
    assert!(text(&output.stderr).starts_with(&expected), "{}", text(&output.stderr));

    let output = umbra(&["server", "-c", "/nonexistent/config.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("error: /nonexistent/config.json: cannot be read: no such file")
    );

    let output = umbra(&["server", "-c", "/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: /: cannot be read"));

    let binary = Config::new("");
    fs::write(binary.path(), [0xff, 0xfe, 0]).unwrap();
    assert!(text(&umbra(&["server", "-c", binary.path()]).stderr).contains("not UTF-8"));
}

#[test]
fn whoever_starts_is_told_file_and_line_of_every_key_and_none_of_a_flag() {
    let config = Config::new(
        "{ \"servers\": [\n  {\"server\": \"a\"}],\n \"timeout\": 10, \"local_port\": 0,\n \"rules\": [\n  {\"ports\": 1, \"to\": \"zz\"}]}",
    );
    let path = config.path();
    let output = umbra(&["local", "-c", path, "--nofile", "1"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for line in [
        &format!("error: {path}:2: servers[0].password: missing; "),
        &format!("error: {path}:5: rules[0].to: there is no way zz; "),
        &format!("warning: your timeout 10 seems too short ({path}:3: timeout)\n"),
        "error: --nofile: 1 descriptors serve no one; ",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
}

#[test]
fn the_users_file_of_a_door_is_told_with_its_lines_as_well() {
    let users = Config::new("{\"password\": {\"users\": [\n{\"user_name\": \"ann\"}]}}");
    let config = Config::new(&format!(
        r#"{{"server": "a", "password": "long-enough", "socks5_auth_config_path": "{}"}}"#,
        users.path()
    ));
    let told = text(&umbra(&["local", "-c", config.path()]).stderr);
    assert!(
        told.contains(&format!("error: {}:2: password.users[0].password: missing", users.path())),
        "{told}"
    );
}

#[test]
fn a_server_does_not_start_with_a_bad_key_or_method() {
    for (args, complaint) in [
        (
            &["-m", "2022-blake3-aes-128-gcm", "-k", "secret"][..],
            "error: -k: 2022-blake3-aes-128-gcm wants 16 bytes",
        ),
        (
            &["-m", "aes-256-gcn", "-k", "long-enough"],
            "error: -m: unknown method aes-256-gcn; did you mean aes-256-gcm?",
        ),
        (&["-m", "rc4-md6", "-k", "long-enough"], "error: -m: unknown method rc4-md6; did you mean rc4-md5?"),
        (&["-k", "mypassword"], "error: -k: an example"),
        (&["-k", ""], "error: -k: empty"),
        (
            &["-m", "2022-blake3-aes-128-gcm", "-k", "AAAAAAAAAAAAAAAAAAAAAA=="],
            "error: -k: the same byte throughout",
        ),
        (&[], "error: password: missing; make one with: umbra key"),
        (&["-t", "0", "-k", "long-enough"], "error: -t: 0 is no idle time"),
    ] {
        let output = umbra(&[&["server", "-p", "0"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).starts_with(complaint), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_server_starts_with_a_short_password_and_warns_of_it() {
    let mut server = Running::start(&["server", "-s", "127.0.0.1:0", "-m", "aes-256-gcm", "-k", "abc123"]);
    server.wait_for("starting server at 127.0.0.1:");
    let warned = "-k: shorter than 8 characters, so it can be guessed; make one with: umbra key aes-256-gcm";
    assert!(server.seen.contains(warned), "{}", server.seen);
    assert!(!server.seen.contains("abc123"), "{}", server.seen);
    assert_eq!(server.end_with(Signal::TERM), Some(0));
}

#[test]
fn a_busy_port_is_told_with_the_flag_that_chooses_another() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let port = busy.local_addr().unwrap().port().to_string();
    for (args, remedy) in [
        (&["server", "-s", &address, "-k", "long-enough"][..], "choose another with -s or -p"),
        (&["local", "-s", "192.0.2.1", "-b", &address, "-k", "long-enough"], "choose another with -b or -l"),
        (&["up", "--socks-port", &port], "choose another with --socks-port"),
        (&["up", "--server-port", &port], "choose another with --server-port"),
    ] {
        let output = umbra(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let expected =
            format!("error: cannot listen on {address}: address in use; is another umbra running? {remedy}");
        assert!(text(&output.stderr).contains(&expected), "{args:?}: {}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("starting"), "{args:?}");
    }
}

#[test]
fn too_few_descriptors_for_the_ports_are_told_with_how_many_it_takes() {
    let ports =
        vec![r#"{"server": "127.0.0.1", "server_port": 0, "password": "long-enough"}"#; 200].join(",");
    let config = Config::new(&format!(r#"{{"servers": [{ports}], "workers": 1, "nofile": 100}}"#));
    let output = umbra(&["server", "-c", config.path()]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    // At which of the sockets they run out depends on what is open already.
    let wanted = ": the 100 descriptors that this process may hold are too few; it needs 638, ";
    assert!(told.contains("error: cannot listen on 127.0.0.1:") && told.contains(wanted), "{told}");
    assert!(told.contains("ulimit -n") && told.contains("LimitNOFILE"), "{told}");
}

#[test]
fn whoever_says_nothing_means_the_config_json_of_the_folder() {
    let config = Config::new(
        r#"{"server": "127.0.0.1", "server_port": 0, "password": "long-enough", "tunnel_remote": "::1", "local_port": 0}"#,
    );
    let folder = Path::new(config.path()).parent().unwrap();
    let start = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
        Running::of(command.args(args).current_dir(folder))
    };
    let mut server = start(&["server", "-v"]);
    server.wait_for("INFO     loading config from config.json");
    server.wait_for("starting server at 127.0.0.1:");
    assert_eq!(server.end_with(Signal::TERM), Some(0));

    let said = umbra_in(folder, &["server", "-m", "nosuch"]);
    assert!(text(&said.stderr).contains("error: password: missing"), "whoever says something means that");
    let check = umbra_in(folder, &["check"]);
    assert!(text(&check.stdout).starts_with("config.json: "), "{}", text(&check.stdout));
    let tunnel = umbra_in(folder, &["tunnel"]);
    assert!(text(&tunnel.stderr).contains("server_port: 0 is no port"), "{}", text(&tunnel.stderr));
}

#[test]
fn both_ends_carry_a_session_and_end_cleanly() {
    let mut server = Running::start(&[
        "server",
        "-s",
        "127.0.0.1:0",
        "-m",
        "aes-128-gcm",
        "-k",
        "long-enough",
        "--forbidden-ip=",
    ]);
    let server_address = server.wait_for("INFO     starting server at ");
    assert!(server.seen.contains("WARNING  warning: server set to listen on 127.0.0.1:0, are you sure?"));
    let url = format!("ss://aes-128-gcm:long-enough@{server_address}#here");
    let mut client = Running::start(&["local", "--server-url", &url, "-l0", "-qv"]);
    let door = client.wait_for("INFO     starting local at ");
    assert_echoes(&door);
    assert_eq!(client.end_with(Signal::INT), Some(0));
    assert_eq!(server.end_with(Signal::TERM), Some(0));
}

#[test]
fn what_nobody_has_gone_by_is_not_told_of_at_the_end() {
    let mut up = Running::start(&["up", "--forbidden-ip="]);
    up.wait_for("starting local at ");
    assert_eq!(up.end_with(Signal::TERM), Some(0));
    let mut rest = String::new();
    up.log.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("counts of"), "{rest}");
}

#[test]
fn an_open_session_does_not_hold_up_the_end() {
    let mut up = Running::start(&["up", "--forbidden-ip="]);
    let door = up.wait_for("starting local at ");
    let mut stream = connect_through(&door, echo_once());
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!(up.end_with(Signal::TERM), Some(0));
}

#[test]
fn up_works_without_configuration_and_its_link_is_a_server() {
    let mut up = Running::start(&["up", "--forbidden-ip="]);
    let server = up.wait_for("starting server at ");
    let door = up.wait_for("starting local at ");
    assert_echoes(&door);

    let mut guide = String::new();
    let mut out = BufReader::new(up.child.stdout.take().unwrap());
    while !guide.contains("Ctrl-C") {
        assert_ne!(out.read_line(&mut guide).unwrap(), 0);
    }
    assert!(guide.contains(&format!("curl --socks5-hostname {door} https://example.com/")));
    let link = guide.lines().map(str::trim).find(|line| line.starts_with("ss://")).unwrap();
    assert!(link.contains(&server));
    let mut second = Running::start(&["local", "--server-url", link, "-l", "0"]);
    assert_echoes(&second.wait_for("starting local at "));
    assert_eq!(second.end_with(Signal::TERM), Some(0));
    assert_eq!(up.end_with(Signal::INT), Some(0));
}

#[test]
fn no_secret_reaches_the_log() {
    let secret = "hunter2hunter2";
    let mut client = Running::start(&["local", "-s", "127.0.0.1:1", "-k", secret, "-l", "0", "-vvv"]);
    let door = client.wait_for("starting local at ");
    let mut stream = TcpStream::connect(door).unwrap();
    stream.write_all(b"\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x00\x50").unwrap();
    let mut answer = Vec::new();
    let _reset_is_an_end_too = stream.read_to_end(&mut answer);
    assert_eq!(client.end_with(Signal::TERM), Some(0));
    client.log.read_to_string(&mut client.seen).unwrap();
    assert!(!client.seen.contains(secret), "{}", client.seen);
}

#[test]
fn quiet_says_nothing_and_a_closed_output_changes_nothing() {
    let mut server = Running::start(&["server", "-s", "127.0.0.1:0", "-qq", "-k", "long-enough"]);
    drop(server.child.stdout.take());
    assert_eq!(umbra(&["check", "--as", "server", "-k", "long-enough"]).status.code(), Some(0));
    kill_until_gone(&mut server);
    server.log.read_to_string(&mut server.seen).unwrap();
    assert_eq!(server.seen, "");
}

/// A signal that comes before the program listens for it ends it as well, only with no code.
fn kill_until_gone(running: &mut Running) {
    assert!(matches!(running.end_with(Signal::TERM), Some(0) | None));
}

/// Runs `args` with `variables` and nothing else of these names in the environment.
fn umbra_with(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    command.env_remove(VARIABLE).envs(variables.iter().copied());
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

const VARIABLE: &str = "UMBRA_TEST_PASSWORD";

#[test]
fn every_password_of_a_file_may_be_a_variable_of_the_environment() {
    let variables = [(VARIABLE, "of the environment")];
    let link = |file: &str| {
        let config = Config::new(file);
        let output = umbra_with(&variables, &["url", "encode", config.path()]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{file}");
        text(&output.stdout)
    };
    let server = r#""server": "192.0.2.7", "server_port": 9, "method": "aes-128-gcm""#;
    let said = |secret: &str| {
        [
            format!(r#"{{{server}, "password": "{secret}"}}"#),
            format!(r#"{{"servers": [{{{server}, "password": "{secret}"}}]}}"#),
            format!(r#"{{{server}, "users": [{{"name": "ann", "password": "{secret}"}}]}}"#),
            format!(
                r#"{{"server": "192.0.2.7", "method": "aes-128-gcm", "port_password": {{"9": "{secret}"}}}}"#
            ),
        ]
    };
    let named = format!("${{{VARIABLE}}}");
    for (named, literal) in said(&named).iter().zip(said("of the environment")) {
        assert_eq!(link(named), link(&literal), "{named}");
    }
    let hop = format!(
        r#"{{"local_port": 0, "outbound_proxy": {{"protocol": "shadowsocks", "address": "192.0.2.7", "port": 9, "method": "aes-128-gcm", "password": "{named}"}}}}"#
    );
    let hop = Config::new(&hop);
    assert_eq!(umbra_with(&variables, &["check", hop.path()]).status.code(), Some(0));
    assert_eq!(umbra_with(&[], &["check", hop.path()]).status.code(), Some(1));
    // What is not all of it is what it says, and so is what somebody else has written.
    let partly = format!("x{named}");
    assert_ne!(link(&said(&partly)[0]), link(&said("xof the environment")[0]));
    let document = Config::new(&format!(
        r#"{{"version": 1, "servers": [{{"server": "192.0.2.7", "server_port": 9, "password": "{named}", "method": "aes-128-gcm"}}]}}"#
    ));
    let of_document = umbra_with(&variables, &["url", "encode", "--server-url", document.path()]);
    assert_eq!(of_document.status.code(), Some(0));
    assert_ne!(text(&of_document.stdout), link(&said(&named)[0]));
}

#[test]
fn the_password_in_the_url_of_a_proxy_may_be_a_variable_of_the_environment() {
    // Whoever asks there has to be somebody whom it knows, so that an answer says that the password was the right one.
    let door =
        Config::new(r#"{"local_port": 0, "direct": true, "users": [{"name": "me", "password": "@:/ %é"}]}"#);
    let mut proxy = Running::start(&["local", "-c", door.path()]);
    let proxy =
        proxy.wait_for("starting local at ").parse::<SocketAddr>().map(|address| (address, proxy)).unwrap();
    let (address, _running) = proxy;
    for way in [
        format!(r#""outbound_proxy": "socks5://me:${{{VARIABLE}}}@{address}""#),
        format!(r#""outbound_proxy": [{{"url": "http://me:${{{VARIABLE}}}@{address}"}}]"#),
        format!(
            r#""groups": [{{"name": "g", "members": ["socks5h://me:${{{VARIABLE}}}@{address}"]}}], "otherwise": "g""#
        ),
    ] {
        let config = Config::new(&format!(r#"{{"local_port": 0, {way}}}"#));
        let target = address.to_string();
        let args = ["route", "-c", config.path(), &target];
        let output = umbra_with(&[(VARIABLE, "@:/ %é")], &args);
        assert!(text(&output.stdout).contains(" ok "), "{}{}", text(&output.stdout), text(&output.stderr));
        let output = umbra_with(&[(VARIABLE, "another one")], &args);
        assert!(text(&output.stdout).contains("negotiate failed"), "{}", text(&output.stdout));
        let told = text(&umbra_with(&[], &args).stderr);
        assert!(told.contains(&format!("the environment variable {VARIABLE}, whose value")), "{told}");
        assert_eq!(told.matches("error: ").count(), 1, "{told}");
    }
}

#[test]
fn a_variable_that_no_shell_has_expanded_is_no_secret_of_the_command_line() {
    let named = format!("${{{VARIABLE}}}");
    let proxy = format!("socks5://me:{named}@192.0.2.1");
    for args in [
        // The check first, which ends whatever comes of it.
        &["check", "-k", &named][..],
        &["server", "-s", "127.0.0.1:0", "-k", &named],
        &["local", "-s", "127.0.0.1:9", "-l", "0", "-k", &named],
        &["local", "-l", "0", "--outbound-proxy", &proxy],
        &["url", "encode", "-s", "192.0.2.1", "-p", "1", "-k", &named],
        &["url", "qr", "-s", "192.0.2.1", "-p", "1", "-k", &named],
    ] {
        let output = umbra_with(&[(VARIABLE, "of the environment")], args);
        let told = text(&output.stderr);
        let code = if args[0] == "url" { 1 } else { 2 };
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(code), String::new()),
            "{args:?} {told}"
        );
        assert!(told.contains("has ${…} for a password") && told.contains("a file for -c"), "{told}");
        assert!(!told.contains(VARIABLE), "{told}");
    }
    for args in [
        &["check", "-s", &named, "-k", "long-enough"][..],
        &["url", "encode", "-s", &named, "-k", "long-enough"],
    ] {
        let told = text(&umbra_with(&[(VARIABLE, "192.0.2.1")], args).stderr);
        assert!(
            told.contains("-s has ${…} for a host, and no shell has put the value there"),
            "{args:?} {told}"
        );
    }
}

#[test]
fn a_server_runs_under_the_secret_that_the_environment_has() {
    let named = Config::new(&format!(
        r#"{{"server": "127.0.0.1", "server_port": 0, "method": "aes-128-gcm", "password": "${{{VARIABLE}}}", "forbidden_ip": []}}"#
    ));
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    let command = command.env(VARIABLE, "of the environment").args(["server", "-c", named.path()]);
    let mut server = Running::of(command);
    let address = server.wait_for("starting server at ");
    let local = Config::new(&format!(
        r#"{{"server": "{address}", "method": "aes-128-gcm", "password": "of the environment", "local_port": 0}}"#
    ));
    let mut client = Running::start(&["local", "-c", local.path()]);
    assert_echoes(&client.wait_for("starting local at "));
}

#[test]
fn a_variable_that_is_missing_or_empty_keeps_everything_from_starting() {
    let file = format!(r#"{{"server": "127.0.0.1", "server_port": 0, "password": "${{{VARIABLE}}}"}}"#);
    let config = Config::new(&file);
    for (variables, why) in [(&[][..], "is not set"), (&[(VARIABLE, "")], "is empty")] {
        // The check first, which ends whatever comes of it.
        for action in ["check", "server"] {
            let output = umbra_with(variables, &[action, "-c", config.path()]);
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{told}");
            let wanted = format!(
                "{}:1: password: the environment variable {VARIABLE}, whose value this is to be, {why}; set it where umbra is started",
                config.path()
            );
            assert_eq!(told.matches("error: ").count(), 1, "{told}");
            assert!(told.contains(&wanted), "{told}");
        }
    }
    // What is missing for want of it is not told besides.
    for file in [
        format!(r#"{{"server": "127.0.0.1", "port_password": {{"9": "${{{VARIABLE}}}"}}}}"#),
        format!(
            r#"{{"local_port": 0, "outbound_proxy": {{"protocol": "socks5", "address": "192.0.2.1", "user": "me", "password": "${{{VARIABLE}}}"}}}}"#
        ),
    ] {
        let told = text(&umbra_with(&[], &["check", Config::new(&file).path()]).stderr);
        assert_eq!(told.matches("error: ").count(), 1, "{told}");
        assert!(told.contains("is not set"), "{told}");
    }
    let nameless = Config::new(&file.replace(VARIABLE, ""));
    assert_eq!(umbra_with(&[], &["check", nameless.path()]).status.code(), Some(1));
    let weak = umbra_with(&[(VARIABLE, "hunter2")], &["check", config.path()]);
    assert_eq!(weak.status.code(), Some(0));
    let told = text(&weak.stderr) + &text(&weak.stdout);
    assert!(told.contains("can be guessed") && !told.contains("hunter2"), "{told}");
}
