//! TLS for what goes out: the machine's own certificate authorities, and those of a file.

use std::path::Path;

use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// What to trust: the machine's authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others, as everywhere) and those of
/// `ca_file`, in PEM.
///
/// # Errors
/// When the file cannot be read or holds no certificate. A machine without authorities is none: every connection fails
/// then, unless `ca_file` has the right one.
pub(crate) fn client(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let machine = rustls_native_certs::load_native_certs();
    for error in &machine.errors {
        tracing::warn!(%error, "a certificate authority of this machine cannot be used");
    }
    roots.add_parsable_certificates(machine.certs);
    if let Some(file) = ca_file {
        let name = file.display();
        let given = CertificateDer::pem_file_iter(file).with_context(|| format!("cannot read {name}"))?;
        let given: Vec<_> = given.collect::<Result<_, _>>().with_context(|| format!("{name} is not PEM"))?;
        if given.is_empty() {
            bail!("{name} holds no certificate; it must be PEM, with a line -----BEGIN CERTIFICATE-----");
        }
        for certificate in given {
            roots.add(certificate).with_context(|| format!("{name} holds a certificate that cannot be used"))?;
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    let versions = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}
