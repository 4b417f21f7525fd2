//! `umbra url` as people use it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use qrcode::{Color, QrCode};
use umbra_proto::url::ServerUrl;

fn url(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    command.arg("url").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn good(args: &[&str], input: &str) -> String {
    let output = url(args, input);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), complaint.as_str()), (Some(0), ""), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn bad(args: &[&str], input: &str) -> String {
    let output = url(args, input);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A file that goes when the test ends.
fn file(contents: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(contents.as_bytes()).unwrap();
    file
}

const PUBLISHED: [&str; 5] = [
    "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888#Example1",
    "ss://cmM0LW1kNTpwYXNzd2Q@192.168.100.1:8888/?plugin=obfs-local%3Bobfs%3Dhttp#Example2",
    "ss://2022-blake3-aes-256-gcm:YctPZ6U7xPPcU%2Bgp3u%2B0tx%2FtRizJN9K8y%2BuKlW2qjlI%3D@192.168.100.1:8888#Example3",
    "ss://2022-blake3-aes-256-gcm:YctPZ6U7xPPcU%2Bgp3u%2B0tx%2FtRizJN9K8y%2BuKlW2qjlI%3D@192.168.100.1:8888/?plugin=v2ray-plugin%3Bserver#Example3",
    "ss://YWVzLTEyOC1nY206dGVzdA@[2001:db8::1]:8888#%C3%A9t%C3%A9",
];

#[test]
fn every_published_link_becomes_a_configuration_and_the_same_link_again() {
    // One asks for the server's end of its plugin, which no client can use.
    let links = PUBLISHED.map(|link| link.replace("%3Bserver", ""));
    for link in &links {
        let config = file(&good(&["decode", link], ""));
        assert_eq!(good(&["encode", config.path().to_str().unwrap()], ""), format!("{link}\n"));
    }
    let all = file(&good(&["decode", "-"], &links.join("\n\n")));
    assert_eq!(good(&["encode", "-c", all.path().to_str().unwrap()], ""), links.join("\n") + "\n");
}

#[test]
fn the_password_of_a_link_is_what_it_says_in_the_file_that_is_made_of_it() {
    for password in ["${HOME}", "$${HOME}", "${NO_SUCH_VARIABLE}", "${}", "$x{HOME}"] {
        let encoded = password.replace('$', "%24").replace('{', "%7B").replace('}', "%7D");
        let link = format!("ss://aes-256-gcm:{encoded}@192.0.2.1:8388");
        let config = good(&["decode", &link], "");
        let made = file(&config);
        let again: ServerUrl = good(&["encode", made.path().to_str().unwrap()], "").trim().parse().unwrap();
        assert_eq!(again.password.as_str(), password, "{config}");
        let several = file(&good(&["decode", &link, &link], ""));
        let links = good(&["encode", several.path().to_str().unwrap()], "");
        assert!(links.lines().all(|link| link.parse().as_ref() == Ok(&again)), "{links}");
    }
}

#[test]
fn servers_are_taken_from_where_a_client_takes_them() {
    let document = file(
        r#"{"version": 1, "servers": [{"server": "b.example", "server_port": 2, "password": "other-secret", "method": "aes-128-gcm"}]}"#,
    );
    let config = file(r#"{"server": "192.0.2.7", "server_port": 9, "password": "of-the-file"}"#);
    let config = config.path().to_str().unwrap();
    for link in PUBLISHED {
        assert_eq!(good(&["encode", "--server-url", link], ""), format!("{link}\n"));
        assert_eq!(good(&["encode", "-c", config, "--server-url", link], ""), format!("{link}\n"));
    }
    let document = document.path().to_str().unwrap();
    let link = "ss://YWVzLTEyOC1nY206b3RoZXItc2VjcmV0@b.example:2\n";
    assert_eq!(good(&["encode", "--server-url", document], ""), link);
    assert_eq!(good(&["encode", "-c", config, "--server-url", document], ""), link);
    assert!(good(&["qr", "--server-url", document], "").contains("b.example:2"));
    assert_eq!(url(&["encode", "--server-url", document, "-s", "a.example"], "").status.code(), Some(2));
}

#[test]
fn a_link_is_shown_as_a_file_that_can_be_started_with() {
    let shown = good(&["decode", PUBLISHED[1]], "");
    assert_eq!(
        shown,
        r#"{
    "server": "192.168.100.1",
    "server_port": 8888,
    "method": "rc4-md5",
    "password": "passwd",
    "plugin": "obfs-local",
    "plugin_opts": "obfs=http",
    "remarks": "Example2"
}
"#
    );
}

#[test]
fn the_form_before_sip002_is_read_and_written() {
    let legacy = "ss://YmYtY2ZiOnRlc3RAMTkyLjE2OC4xMDAuMTo4ODg4#example-server%201";
    let config = file(&good(&["decode", legacy], ""));
    let path = config.path().to_str().unwrap();
    assert_eq!(good(&["encode", "--legacy", path], ""), format!("{legacy}\n"));
    assert_eq!(good(&["encode", path], ""), "ss://YmYtY2ZiOnRlc3Q@192.168.100.1:8888#example-server%201\n");
    let config = file(&good(&["decode", PUBLISHED[1]], ""));
    assert!(
        bad(&["encode", "--legacy", config.path().to_str().unwrap()], "").contains("no place for a plugin")
    );
}

#[test]
fn flags_are_enough_for_a_link_and_beat_the_file() {
    let flags = ["-s", "::1", "-p", "8388", "-m", "AES-128-GCM", "-k", "a:b@c", "--tag", "my server"];
    let link = "ss://YWVzLTEyOC1nY206YTpiQGM@[::1]:8388#my%20server\n";
    assert_eq!(good(&[&["encode"], &flags[..]].concat(), ""), link);
    let config = file(
        r#"{"server": "a", "server_port": 1, "password": "x", "plugin": "kcptun", "plugin_opts": "k=v"}"#,
    );
    let path = config.path().to_str().unwrap();
    let plain = good(&["encode", path, "-p", "2", "--plugin-opts", r"k=\;"], "");
    assert_eq!(plain, "ss://Y2hhY2hhMjAtaWV0Zi1wb2x5MTMwNTp4@a:2/?plugin=kcptun%3Bk%3D%5C%3B\n");
}

#[test]
fn a_servers_file_is_a_link_for_each_of_its_ports_with_the_host_that_clients_know() {
    let config =
        file(r#"{"server": "0.0.0.0", "port_password": {"1": "a", "2": "b"}, "method": "aes-128-gcm"}"#);
    let path = config.path().to_str().unwrap();
    let links = good(&["encode", path, "--host", "proxy.example"], "");
    assert_eq!(links, "ss://YWVzLTEyOC1nY206YQ@proxy.example:1\nss://YWVzLTEyOC1nY206Yg@proxy.example:2\n");
    let complaint = bad(&["encode", path], "");
    assert!(
        complaint
            .contains("0.0.0.0 is where it listens; give the name or address that clients know with --host")
    );
    let list =
        file(r#"{"server": ["a", "::1"], "server_port": [1, 2], "password": "x", "method": "aes-128-gcm"}"#);
    assert_eq!(good(&["encode", list.path().to_str().unwrap()], "").lines().count(), 4);
}

#[test]
fn a_servers_plugin_is_the_clients_end_of_it_in_a_link() {
    let config = |plugin: &str, options: &str| {
        file(&format!(
            r#"{{"server": "a", "server_port": 1, "method": "aes-128-gcm", "password": "x", "plugin": "{plugin}", "plugin_opts": "{options}"}}"#
        ))
    };
    let link = |plugin: &str| format!("ss://YWVzLTEyOC1nY206eA@a:1/?plugin={plugin}\n");
    let obfs = config("obfs-server", "obfs=tls");
    let obfs = obfs.path().to_str().unwrap();
    assert_eq!(good(&["encode", obfs], ""), link("obfs-local%3Bobfs%3Dtls"));
    assert_draws(&good(&["qr", "-c", obfs], ""), link("obfs-local%3Bobfs%3Dtls").trim_end());
    for (plugin, options, asked, warning) in [
        ("v2ray-plugin", "server;tls", "v2ray-plugin%3Btls", "plugin_opts: server is left out of the link"),
        (
            "ck-server",
            "a=b",
            "ck-server%3Ba%3Db",
            "plugin: ck-server is not among the plugins that a link may",
        ),
    ] {
        let config = config(plugin, options);
        let output = url(&["encode", config.path().to_str().unwrap()], "");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap()), (Some(0), link(asked)));
        assert!(told.starts_with("warning: ") && told.contains(warning), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn what_a_link_has_no_place_for_is_told() {
    let single = file(
        r#"{"server": "a", "server_port": 1, "method": "aes-256-cfb", "password": "x", "one_time_auth": true, "local_port": 2}"#,
    );
    let listed = file(
        r#"{"servers": [{"server": "a", "server_port": 1, "method": "aes-256-cfb", "password": "x", "auth": true,
            "plugin": "kcptun", "plugin_args": ["-v"], "mode": "tcp_only", "segmented_heads": false}]}"#,
    );
    let lost = ": left out: a link has no place for it; say it once more where the link is used\n";
    for (config, places) in [
        (&single, &["1: one_time_auth"][..]),
        (&listed, &["1: servers[0].auth", "2: servers[0].plugin_args", "2: servers[0].mode"]),
    ] {
        for action in [&["encode"][..], &["qr", "-c"]] {
            let output = url(&[action, &[config.path().to_str().unwrap()]].concat(), "");
            assert_eq!(output.status.code(), Some(0));
            let told = String::from_utf8(output.stderr).unwrap();
            let file = config.path().display();
            let wanted: String =
                places.iter().map(|place| format!("warning: {file}:{place}{lost}")).collect();
            assert_eq!(told, wanted);
        }
    }
}

#[test]
fn a_host_of_any_letters_is_written_so_that_every_program_reads_it() {
    let link = good(&["encode", "-s", "exämple.com", "-p", "1", "-m", "aes-128-gcm", "-k", "x"], "");
    assert_eq!(link, "ss://YWVzLTEyOC1nY206eA@ex%C3%A4mple.com:1\n");
    let shown = good(&["decode", link.trim_end()], "");
    assert!(shown.contains("\"server\": \"exämple.com\""), "{shown}");
}

#[test]
fn each_user_of_a_server_has_a_link_of_their_own() {
    let of_2022 = file(
        r#"{"server": "a", "server_port": 1, "method": "2022-blake3-aes-128-gcm", "password": "P==", "users": [
            {"name": "ann", "password": "A=="}, {"name": "bob", "password": "B=="},
            {"name": "next", "password": "N==", "forward": "b:2"}]}"#,
    );
    let output = url(&["encode", of_2022.path().to_str().unwrap()], "");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "ss://2022-blake3-aes-128-gcm:P%3D%3D%3AA%3D%3D@a:1#ann\nss://2022-blake3-aes-128-gcm:P%3D%3D%3AB%3D%3D@a:1#bob\n"
    );
    assert!(String::from_utf8(output.stderr).unwrap().contains("users[2].forward: left out"));
    let of_aead = file(
        r#"{"server": "a", "server_port": 1, "method": "aes-128-gcm", "users": [{"name": "ann", "password": "x"}]}"#,
    );
    assert_eq!(good(&["encode", of_aead.path().to_str().unwrap()], ""), "ss://YWVzLTEyOC1nY206eA@a:1#ann\n");
    let of_client = file(
        r#"{"server": "a", "server_port": 1, "method": "aes-128-gcm", "password": "x", "local_port": 1080,
            "users": [{"name": "ann", "password": "of the SOCKS5 door"}]}"#,
    );
    assert_eq!(good(&["encode", of_client.path().to_str().unwrap()], ""), "ss://YWVzLTEyOC1nY206eA@a:1\n");
}

/// The modules of the QR code drawn in `lines`, row by row: whether each is dark. Ink is light, as on a dark terminal.
fn modules(lines: &[&str]) -> Vec<Vec<bool>> {
    let halves = |c| match c {
        ' ' => [true, true],
        '▀' => [false, true],
        '▄' => [true, false],
        '█' => [false, false],
        other => panic!("{other:?} is no part of a drawing"),
    };
    let row = |line: &str, half: usize| line.chars().map(|c| halves(c)[half]).collect();
    lines.iter().flat_map(|line| [row(line, 0), row(line, 1)]).collect()
}

/// What a camera has to see of `text`: its matrix, with four light modules around it (ISO/IEC 18004, section 6.3.8).
fn matrix(text: &str) -> Vec<Vec<bool>> {
    let code = QrCode::new(text).unwrap();
    let (width, quiet) = (code.width(), 4);
    let mut rows = vec![vec![false; width + 2 * quiet]; width + 2 * quiet];
    for (index, color) in code.to_colors().into_iter().enumerate() {
        rows[quiet + index / width][quiet + index % width] = color == Color::Dark;
    }
    rows
}

/// Checks that the last thing drawn in `output` is `text`.
fn assert_draws(output: &str, text: &str) {
    let expected = matrix(text);
    let height = expected.len().div_ceil(2);
    let lines: Vec<_> = output.lines().collect();
    let drawn = modules(&lines[lines.len() - height..]);
    // The lower half of the last line is below the code.
    assert!(drawn[..expected.len()] == expected, "{output}");
    assert_eq!(lines[lines.len() - height - 1], "", "nothing more is drawn: {output}");
}

#[test]
fn links_and_files_are_drawn_as_a_camera_reads_them() {
    let of_flags =
        ["-s", "192.168.100.1", "-p", "8888", "-m", "aes-128-gcm", "-k", "test", "--tag", "Example1"];
    for (args, link) in [
        (&["qr", PUBLISHED[0]][..], PUBLISHED[0]),
        (&[&["qr"], &of_flags[..]].concat(), PUBLISHED[0]),
        (&["qr", PUBLISHED[3]], PUBLISHED[3]),
        (&["qr", PUBLISHED[4]], PUBLISHED[4]),
    ] {
        let drawn = good(args, "");
        let name = link.parse::<ServerUrl>().unwrap().tag.unwrap();
        assert!(drawn.starts_with(&format!("\n{name}, ")), "{drawn}");
        assert_draws(&drawn, link);
    }
    let both = good(&["qr", "-"], &format!("{}\n{}", PUBLISHED[0], PUBLISHED[1]));
    let second = both.find("\nExample2, 192.168.100.1:8888\n").unwrap();
    assert_draws(&both[..second], PUBLISHED[0]);
    assert_draws(&both[second..], PUBLISHED[1]);
}

#[test]
fn what_is_wrong_is_told_without_the_secret() {
    for (args, input, complaint) in [
        (
            &["decode", "http://hunter2"][..],
            "",
            "link 1: the link does not start with ss://; it looks like ss://METHOD",
        ),
        (&["decode", "-"], "\n\n", "there is no link in the standard input"),
        (&["decode", "-"], "ss://a:hunter2@h\n", "link 1: the link's server:"),
        (&["encode", "-s", "a"], "", "password: missing"),
        (&["encode", "-k", "hunter2"], "", "server: missing"),
        (&["encode", "-s", "a", "-m", "b:c", "-k", "hunter2"], "", "cannot be written as a link"),
        (&["encode", "-c", "/nonexistent"], "", "/nonexistent: cannot be read"),
    ] {
        let told = bad(args, input);
        assert!(told.contains(complaint), "{args:?}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let misused = url(&["qr", "ss://x", "-c", "file"], "");
    assert_eq!(misused.status.code(), Some(2));
    assert_eq!(url(&[], "").status.code(), Some(2));
}
