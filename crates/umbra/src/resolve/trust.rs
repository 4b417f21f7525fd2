//! Whom we believe that a proxy within TLS is who it says.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::file::NO_PATH;

/// The configurations for TLS, one for each file of certificates, since each has all of its roots in memory.
#[derive(Default)]
pub(super) struct Trust(HashMap<Option<String>, Result<Arc<ClientConfig>, String>>);

impl Trust {
    /// Trusts whom the certificates in `ca_file` have signed, or those of the system.
    pub(super) fn config(&mut self, ca_file: Option<&str>) -> Result<Arc<ClientConfig>, String> {
        let made = self.0.entry(ca_file.map(Into::into)).or_insert_with(|| {
            let roots = match ca_file {
                Some(path) => roots_of_file(path),
                None => roots_of_system(),
            };
            roots.and_then(configure)
        });
        made.clone()
    }
}

fn configure(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The system's roots, or those of `SSL_CERT_FILE`.
fn roots_of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this machine has no root certificates to check the proxy with; install ca-certificates, or \
                    name a file with ca_file"
                .into(),
        );
    }
    Ok(roots)
}

fn roots_of_file(path: &str) -> Result<RootCertStore, String> {
    if path.is_empty() {
        return Err(NO_PATH.into());
    }
    let wanted = "give a file of certificates in PEM";
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| format!("{path} cannot be read: {error}; {wanted}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| format!("{path} has a bad certificate: {error}; {wanted}"))?;
    }
    if roots.is_empty() {
        return Err(format!("{path} has no certificate in it; {wanted}"));
    }
    Ok(roots)
}
