//! Gets a document over HTTPS, within bounds of size, time and redirects.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Error, Timeout};
use zeroize::Zeroizing;

use super::{DOCUMENT_BYTES_MAX, Unloaded, Web};

/// The text at `web`. What went wrong is told without the URL.
pub(super) fn fetch(web: &Web) -> Result<Zeroizing<String>, Unloaded> {
    fetch_within(web, FETCH_SECS_MAX)
}

fn fetch_within(web: &Web, patience: Duration) -> Result<Zeroizing<String>, Unloaded> {
    let agent: Agent = Agent::config_builder()
        .https_only(web.is_https)
        // Without TLS, a redirect could come from anyone.
        .max_redirects(if web.is_https { REDIRECTS_MAX } else { 0 })
        // The environment's proxy may well be ourselves, who have no servers yet.
        .proxy(None)
        .timeout_global(Some(patience))
        .max_response_header_size(HEADER_BYTES_MAX)
        .user_agent(concat!("umbra/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .tls_config(tls_config(web)?)
        .build()
        .into();
    let mut response = agent.get(web.url.as_str()).call().map_err(|error| explain(&error))?;
    if response.status().is_redirection() {
        return Err("answered with a redirect where none is followed".to_owned().into());
    }
    let body = response.body_mut().with_config().limit(DOCUMENT_BYTES_MAX).read_to_vec();
    let body = Zeroizing::new(body.map_err(|error| explain(&error))?);
    let text = str::from_utf8(&body).map_err(|_| "is not UTF-8 text".to_owned())?;
    Ok(Zeroizing::new(text.into()))
}

/// Certificates are checked against the system's roots, or those of `SSL_CERT_FILE`. Nothing turns that off.
fn tls_config(web: &Web) -> Result<TlsConfig, String> {
    let mut roots = Vec::new();
    if web.is_https {
        let loaded = rustls_native_certs::load_native_certs();
        roots.extend(loaded.certs.iter().map(|der| Certificate::from_der(der).to_owned()));
        if roots.is_empty() {
            return Err(
                "cannot be fetched: this machine has no root certificates to check its server with; install ca-certificates"
                    .into(),
            );
        }
    }
    let config = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)));
    Ok(config.build())
}

/// Some errors would print the URL, so each is put into words of our own, which go on where "the document of servers" begins.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds kinds as it likes")]
fn explain(error: &Error) -> Unloaded {
    let why = match error {
        Error::StatusCode(code) => format!("cannot be fetched: its server answers {code}"),
        Error::Timeout(Timeout::Resolve) => {
            "cannot be fetched: its server's name could not be looked up in time".into()
        }
        Error::Timeout(_) => format!("did not come whole within {} s", FETCH_SECS_MAX.as_secs()),
        Error::HostNotFound => "cannot be fetched: its server's name is not known".into(),
        Error::BodyExceedsLimit(bytes) => {
            format!("is longer than {bytes} bytes, so it is no list of servers")
        }
        Error::TooManyRedirects => format!("leads to more than {REDIRECTS_MAX} redirects"),
        Error::RequireHttpsOnly(_) => {
            "cannot be fetched: its server redirects to something that is not https".into()
        }
        Error::Io(error) => explain_io(error),
        Error::Rustls(error) => format!("cannot be fetched: TLS: {error}"),
        Error::Tls(what) => format!("cannot be fetched: TLS: {what}"),
        Error::ConnectionFailed => "cannot be fetched: its server cannot be reached".into(),
        Error::LargeResponseHeader(_, max) => {
            format!("cannot be fetched: its server's answer begins with more than {max} bytes of header")
        }
        Error::Protocol(_) => "cannot be fetched: its server does not speak HTTP as it should".into(),
        _ => "cannot be fetched".into(),
    };
    if may_pass(error) { Unloaded::passing(why) } else { why.into() }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library adds kinds as it likes")]
fn may_pass(error: &Error) -> bool {
    match error {
        Error::StatusCode(code) => (500..600).contains(code),
        Error::Timeout(_) | Error::HostNotFound | Error::ConnectionFailed => true,
        Error::Io(error) => tls_error(error).is_none(),
        _ => false,
    }
}

fn explain_io(error: &io::Error) -> String {
    let what = tls_error(error).map_or_else(|| error.to_string(), |error| format!("TLS: {error}"));
    format!("cannot be fetched: {what}")
}

/// Rustls speaks through errors of input and output as well.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

/// All of it, from the name to the last byte.
const FETCH_SECS_MAX: Duration = Duration::from_secs(30);

/// A provider that moves its documents needs one or two.
const REDIRECTS_MAX: u32 = 3;

/// More than any server sends.
const HEADER_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Instant;

    /// A server that answers each request with `answer`; without TLS, as on loopback it may be.
    fn serve(answer: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/secret", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _request = stream.read(&mut [0; 4096]).unwrap();
                let _whoever_asked_may_be_gone = answer(&mut stream);
            }
        });
        Web::parse(&url).unwrap()
    }

    fn say(head: &'static str, body: Vec<u8>) -> Web {
        serve(move |stream| {
            stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes())?;
            stream.write_all(&body)
        })
    }

    fn why(web: &Web) -> String {
        let why = fetch_within(web, Duration::from_secs(5)).map(|_| ()).unwrap_err().to_string();
        assert!(!why.contains("secret"), "{why}");
        why
    }

    #[test]
    fn a_document_is_fetched_as_it_is() {
        let web = say("200 OK\r\nContent-Length: 5", "ü{}\n".into());
        assert_eq!(*fetch(&web).unwrap(), "ü{}\n");
    }

    #[test]
    fn what_is_no_document_is_told() {
        assert_eq!(why(&say("404 Not Found", Vec::new())), "cannot be fetched: its server answers 404");
        assert_eq!(why(&say("500 Oh", Vec::new())), "cannot be fetched: its server answers 500");
        assert!(
            why(&say("301 Moved\r\nLocation: http://127.0.0.1:1/secret", Vec::new())).contains("redirect")
        );
        assert_eq!(why(&say("200 OK", vec![0xff, 0xfe])), "is not UTF-8 text");
        assert_eq!(
            why(&serve(|stream| stream.write_all(b"SSH-2.0-x\r\n"))),
            "cannot be fetched: its server does not speak HTTP as it should"
        );
        let refused = why(&Web::parse("http://127.0.0.1:1/secret").unwrap());
        assert!(refused.starts_with("cannot be fetched: ") && refused.contains("refused"), "{refused}");
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        let may_pass = |web: &Web| fetch(web).map(|_| ()).unwrap_err().may_pass;
        for web in [Web::parse("http://127.0.0.1:1/x").unwrap(), say("503 Later", Vec::new())] {
            assert!(may_pass(&web));
        }
        for web in [
            say("404 Not Found", Vec::new()),
            say("200 OK", vec![0xff]),
            serve(|stream| stream.write_all(b"SSH-2.0-x\r\n")),
        ] {
            assert!(!may_pass(&web));
        }
    }

    #[test]
    fn a_document_without_end_is_left() {
        let endless = |head: &'static str| {
            serve(move |stream| {
                stream.write_all(head.as_bytes())?;
                loop {
                    stream.write_all(b"4\r\n    \r\n")?;
                }
            })
        };
        assert!(why(&endless("HTTP/1.1 200 OK\r\n\r\n")).starts_with("is longer than 1048576 bytes"));
        assert!(
            why(&endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
                .starts_with("is longer than")
        );
        let said_to_be_long = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        assert!(why(&endless(said_to_be_long)).starts_with("is longer than"));
        let heading = serve(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")?;
            }
        });
        let why = why(&heading);
        assert!(why.contains("header") || why.contains("HTTP"), "{why}");
    }

    #[test]
    fn a_document_that_drips_is_left_in_time() {
        let silent = serve(|stream| stream.read(&mut [0; 16]).map(|_| ()));
        let dripping = serve(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
            loop {
                stream.write_all(b" ")?;
                thread::sleep(Duration::from_millis(20));
            }
        });
        for web in [silent, dripping] {
            let began = Instant::now();
            let why = fetch_within(&web, Duration::from_millis(300)).map(|_| ()).unwrap_err();
            assert!(why.may_pass);
            let why = why.to_string();
            assert!(why.starts_with("did not come whole"), "{why}");
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
    }
}
