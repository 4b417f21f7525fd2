//! The real program with its servers in a document elsewhere (SIP008): over HTTPS with a certificate authority of the test's own, and
//! in a file.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use running::{Umbra, assert_echoes, echo, eventually, exchange};

const SECRETS: [&str; 2] = ["first-secret-of-its-kind", "second-secret-of-its-kind"];

/// A web server with TLS, and the certificate authority that vouches for it.
struct Web {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
    authority: PathBuf,
    folder: TempDir,
}

impl Web {
    /// A server whose certificate names `host`.
    fn start(host: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = folder.path().join("authority.pem");
        let der = BASE64_STANDARD.encode(issuer.der());
        fs::write(&authority, format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n"))
            .unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Self {
            address: listener.local_addr().unwrap(),
            answer: Arc::default(),
            asked: Arc::default(),
            authority,
            folder,
        };
        let (answer, asked, config) = (Arc::clone(&web.answer), Arc::clone(&web.asked), Arc::new(config));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(tls, stream.unwrap());
                let mut request = vec![0; 4096];
                let Ok(len) = stream.read(&mut request) else { continue };
                asked.lock().unwrap().push(String::from_utf8(request[..len].to_vec()).unwrap());
                let _gone_already = stream.write_all(answer.lock().unwrap().as_bytes());
                stream.conn.send_close_notify();
                let _gone_already = stream.flush();
            }
        });
        web
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/hidden-path?token=hidden-token", self.address.port())
    }

    fn answer(&self, head: &str, body: &str) {
        *self.answer.lock().unwrap() =
            format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// What has the program trust the authority and no one else.
    fn trust(&self) -> [(&str, &str); 2] {
        [("SSL_CERT_FILE", self.authority.to_str().unwrap()), ("SSL_CERT_DIR", "/nonexistent")]
    }

    /// A client's configuration that asks for the document every second.
    fn config(&self) -> String {
        let path = self.folder.path().join("config.json");
        let text = format!(
            r#"{{"local_port": 0, "online_config": {{"config_url": "{}", "update_interval": 1}}}}"#,
            self.url()
        );
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn check(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
        command.arg("check").args(args).envs(self.trust()).output().unwrap()
    }
}

fn server(secret: &str) -> Umbra {
    Umbra::start(&["server", "-s", "127.0.0.1:0", "-m", "aes-128-gcm", "-k", secret, "--forbidden-ip="])
}

fn entry(id: &str, server: SocketAddr, secret: &str) -> String {
    format!(
        r#"{{"id": "{id}", "remarks": "x", "server": "{}", "server_port": {}, "password": "{secret}", "method": "aes-128-gcm"}}"#,
        server.ip(),
        server.port()
    )
}

fn document(servers: &[String], used: u64) -> String {
    format!(
        r#"{{"version": 1, "servers": [{}], "bytes_used": {used}, "bytes_remaining": 1073741824}}"#,
        servers.join(",")
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn assert_discreet(said: &str) {
    for hidden in ["hidden-path", "hidden-token", SECRETS[0], SECRETS[1]] {
        assert!(!said.contains(hidden), "{hidden} in:\n{said}");
    }
}

#[test]
fn servers_come_from_a_document_and_change_with_it() {
    let (web, target) = (Web::start("localhost"), echo());
    let [mut first, second] = SECRETS.map(server);
    web.answer("200 OK", &document(&[entry("a", first.address, SECRETS[0])], 1 << 30));
    let mut client = Umbra::start_with(&["local", "-c", &web.config(), "-vv"], &web.trust());
    assert_echoes(client.address, target);
    client.wait_for("localhost: 1 server");
    client.wait_for("1.0 GiB used, 1.0 GiB left");

    web.answer("200 OK", &document(&[entry("b", second.address, SECRETS[1])], 3 << 29));
    client.wait_for("localhost: 1 server, 1 of them new, 1 gone");
    client.wait_for("localhost: 1.5 GiB used, 1.0 GiB left");
    first.end();
    for _ in 0..4 {
        exchange(client.address, target, b"through the second").unwrap();
    }

    let request = web.asked.lock().unwrap()[0].clone();
    assert!(request.starts_with("GET /hidden-path?token=hidden-token HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("user-agent: umbra/"), "{request}");
    client.end();
    assert_discreet(&client.log());
}

#[test]
fn documents_and_a_link_stand_in_one_list_and_each_is_kept_fresh() {
    let (web, target) = (Web::start("localhost"), echo());
    let [mut first, second] = SECRETS.map(server);
    let mut third = server(SECRETS[0]);
    web.answer("200 OK", &document(&[entry("a", first.address, SECRETS[0])], 1 << 30));
    let path = web.folder.path().join("document.json");
    fs::write(&path, document(&[entry("b", first.address, SECRETS[0])], 1 << 20)).unwrap();
    let config = web.folder.path().join("config.json");
    let fresh = |place: &str| format!(r#"{{"config_url": "{place}", "update_interval": 1}}"#);
    let link = format!("ss://aes-128-gcm:{}@{}", SECRETS[0], third.address);
    let list = [fresh(&web.url()), fresh(path.to_str().unwrap()), format!("\"{link}\"")].join(",");
    fs::write(&config, format!(r#"{{"local_port": 0, "servers": [{list}]}}"#)).unwrap();
    let mut client = Umbra::start_with(&["local", "-c", config.to_str().unwrap(), "-vv"], &web.trust());
    assert_echoes(client.address, target);
    client.wait_for("localhost: 1.0 GiB used, 1.0 GiB left");
    client.wait_for("document.json: 1.0 MiB used, 1.0 GiB left");

    // What one document brings stays when the other one changes, and the link's server is there all the time.
    web.answer("200 OK", &document(&[entry("a", second.address, SECRETS[1])], 3 << 29));
    client.wait_for("localhost: 1 server, 0 of them new, 0 gone");
    client.wait_for("localhost: 1.5 GiB used, 1.0 GiB left");
    fs::write(&path, document(&[entry("c", first.address, SECRETS[0])], 3 << 19)).unwrap();
    client.wait_for("document.json: 1 server, 1 of them new, 1 gone");
    client.wait_for("document.json: 1.5 MiB used, 1.0 GiB left");
    first.end();
    third.end();
    for _ in 0..4 {
        exchange(client.address, target, b"through the second").unwrap();
    }
    client.end();
    assert_discreet(&client.log());
}

#[test]
fn a_document_is_written_as_links_too() {
    let web = Web::start("localhost");
    let server = SocketAddr::from(([192, 0, 2, 1], 8388));
    web.answer("200 OK", &document(&[entry("a", server, SECRETS[0]), entry("b", server, SECRETS[1])], 0));
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    let output = command.args(["url", "encode", "-c", &web.config()]).envs(web.trust()).output().unwrap();
    let links = text(&output.stdout);
    assert_eq!(links.lines().count(), 2, "{links}{}", text(&output.stderr));
    assert!(
        links.lines().all(|link| link.starts_with("ss://") && link.ends_with("@192.0.2.1:8388#x")),
        "{links}"
    );
    web.answer("404 Gone", "");
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    let output = command.args(["url", "encode", "-c", &web.config()]).envs(web.trust()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("its server answers 404"), "{}", text(&output.stderr));
}

#[test]
fn a_document_that_fails_leaves_the_servers_that_were_there() {
    let (web, target) = (Web::start("localhost"), echo());
    let first = server(SECRETS[0]);
    let good = document(&[entry("a", first.address, SECRETS[0])], 0);
    web.answer("200 OK", &good);
    let client = Umbra::start_with(&["local", "-c", &web.config(), "-vv"], &web.trust());
    assert_echoes(client.address, target);

    web.answer("503 Later", "");
    client.wait_for("localhost: the document of servers cannot be fetched: its server answers 503; going on with the servers that were there");
    for bad in
        ["not JSON", r#"{"version": 1, "servers": []}"#, r#"{"version": 1, "servers": [{"server": "a"}]}"#]
    {
        web.answer("200 OK", bad);
        let asked = web.asked();
        eventually(|| if web.asked() > asked + 1 { Ok(()) } else { Err("nobody asks again".into()) });
        exchange(client.address, target, b"still there").unwrap();
    }
    web.answer("200 OK", &good);
    client.wait_for("localhost: the document of servers can be loaded again");
    exchange(client.address, target, b"still there").unwrap();
    assert_eq!(client.log().matches("going on with the servers").count(), 1, "{}", client.log());
}

#[test]
fn a_client_that_starts_before_its_document_can_be_had_comes_to_its_servers_later() {
    let (web, target) = (Web::start("localhost"), echo());
    let first = server(SECRETS[0]);
    web.answer("503 Later", "");
    let output = web.check(&["-c", &web.config()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let complaint = "online_config.config_url: the document of servers at localhost cannot be fetched: its server answers 503; sessions are refused until";
    assert!(
        text(&output.stderr).contains(&format!("config.json:1: {complaint}")),
        "{}",
        text(&output.stderr)
    );

    let client = Umbra::start_with(&["local", "-c", &web.config(), "-vv"], &web.trust());
    client.wait_for(complaint);
    let asked = web.asked();
    eventually(|| if web.asked() > asked { Ok(()) } else { Err("nobody asks again".into()) });
    assert!(exchange(client.address, target, b"too early").is_err());
    web.answer("200 OK", &document(&[entry("a", first.address, SECRETS[0])], 0));
    client.wait_for("localhost: the document of servers can be loaded again");
    client.wait_for("localhost: 1 server, 1 of them new, 0 gone");
    assert_echoes(client.address, target);
}

#[test]
fn good_servers_are_used_and_bad_ones_named() {
    let (web, target) = (Web::start("localhost"), echo());
    let first = server(SECRETS[0]);
    let bad = [
        r#"{"id": "1", "server": "a", "server_port": 1, "password": "long-enough"}"#.to_owned(),
        entry("2", first.address, SECRETS[1]).replace("aes-128-gcm", "zzz"),
        entry("3", first.address, SECRETS[1]).replace("\"remarks\"", "\"plugin\": \"poweroff\", \"remarks\""),
        entry("4", first.address, SECRETS[0]),
    ];
    web.answer("200 OK", &document(&bad, 0));
    let client = Umbra::start_with(&["local", "--server-url", &web.url(), "-l", "0"], &web.trust());
    assert_echoes(client.address, target);
    let log = client.log();
    for complaint in [
        "localhost servers[0].method: is missing; this server is left out",
        "localhost servers[1].method: unknown method zzz",
        "localhost servers[2].plugin: poweroff is not among the plugins",
    ] {
        assert!(log.contains(complaint), "no «{complaint}» in:\n{log}");
    }
    assert!(log.contains("localhost: 1 server"), "{log}");
    assert_discreet(&log);

    let output = web.check(&["--server-url", &web.url()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).starts_with("localhost: 1 server\nlocalhost: 0 bytes used, 1.0 GiB left\n"),
        "{}",
        text(&output.stdout)
    );

    web.answer("200 OK", &document(&bad[..3], 0));
    let output = web.check(&["--server-url", &web.url()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(
            "error: --server-url: the document of servers at localhost names no server that can be used"
        ),
        "{said}"
    );
    assert_discreet(&said);
}

#[test]
fn nothing_comes_from_a_server_that_nobody_vouches_for() {
    let web = Web::start("localhost");
    web.answer("200 OK", &document(&[entry("a", web.address, SECRETS[0])], 0));
    let stranger = Web::start("localhost");
    let other_name = Web::start("other.example");
    let cases = [
        (&web, stranger.trust(), "invalid peer certificate"),
        (&other_name, other_name.trust(), "invalid peer certificate"),
        (&web, [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")], "no root certificates"),
    ];
    for (asked, trust, why) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
        let output = command.args(["local", "-c", &asked.config()]).envs(trust).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("config.json:1: online_config.config_url: the document of servers at localhost"),
            "{said}"
        );
        assert!(said.contains(why), "{said}");
        assert_discreet(&said);
        assert_eq!(asked.asked(), 0, "the secret in the URL was not told");
    }
}

#[test]
fn a_redirect_is_followed_to_https_only_and_not_for_ever() {
    let (web, other) = (Web::start("localhost"), Web::start("localhost"));
    let complaint = |location: &str| {
        web.answer(&format!("302 Found\r\nLocation: {location}"), "");
        let output = web.check(&["--server-url", &web.url()]);
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    plain.set_nonblocking(true).unwrap();
    let said = complaint(&format!("http://{}/hidden-path", plain.local_addr().unwrap()));
    assert!(said.contains("its server redirects to something that is not https"), "{said}");
    assert!(plain.accept().is_err(), "nobody came without TLS");
    let asked = web.asked();
    let said = complaint(&web.url());
    assert!(said.contains("leads to more than 3 redirects"), "{said}");
    assert_eq!(web.asked(), asked + 4);
    // Another authority vouches for the other one.
    let said = complaint(&other.url());
    assert!(said.contains("invalid peer certificate"), "{said}");
}

#[test]
fn a_file_is_a_document_too_and_a_configuration_as_it_stands() {
    let (web, target) = (Web::start("localhost"), echo());
    let first = server(SECRETS[0]);
    let path = web.folder.path().join("a document.json");
    fs::write(&path, document(&[entry("a", first.address, SECRETS[0])], 1 << 20)).unwrap();
    let path = path.to_str().unwrap();
    let file_url = format!("file://{}", path.replace(' ', "%20"));
    for args in [["--server-url", path], ["--server-url", &file_url], ["-c", path]] {
        let client = Umbra::start(&[&["local", "-l", "0"], &args[..]].concat());
        assert_echoes(client.address, target);
        client.wait_for("1.0 MiB used, 1.0 GiB left");
        assert!(!client.log().contains("WARNING"), "{}", client.log());
    }
    let output = web.check(&[path]);
    let said = text(&output.stdout);
    assert!(said.contains("1.0 MiB used") && said.contains("good for umbra local"), "{said}");
}

#[test]
fn what_is_no_source_of_servers_is_told_without_repeating_it() {
    let web = Web::start("localhost");
    for (url, why) in [
        ("http://example.com/hidden-path", "use https"),
        ("hidden-token@example.com:1", "neither a link"),
        ("/nonexistent/hidden-path", "neither a link"),
    ] {
        let output = web.check(&["--server-url", url]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error: --server-url: ") && said.contains(why), "{said}");
        assert_discreet(&said);
    }
}
