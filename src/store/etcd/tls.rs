//! Certificates: whom to believe, and what to show.

use crate::config::{self, Certificates};
use crate::error::{Error, Result};
use crate::sync::Arc;
use std::path::Path;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Where systems keep the certificates of those that everybody believes.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// As the environment says, where TLS is wanted.
pub fn config(wanted: bool) -> Result<TlsConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    if !wanted {
        return Ok(builder.root_certs(RootCerts::new_with_certs(&[])).build());
    }
    let files = config::etcd_certificates()?;
    let roots = match &files.authorities {
        Some(path) => certificates(Certificates::AUTHORITIES, path)?,
        None => {
            let path = SYSTEM.into_iter().map(Path::new).find(|path| path.exists());
            let path = path.ok_or_else(|| {
                let name = Certificates::AUTHORITIES;
                Error::argument(format!("{name}: not set, and this system has no certificates"))
            })?;
            certificates(Certificates::AUTHORITIES, path)?
        }
    };
    let own = match &files.own {
        Some((cert, key)) => {
            Some(ClientCert::new_with_certs(&certificates(Certificates::OWN, cert)?, private_key(key)?))
        }
        None => None,
    };
    Ok(builder.root_certs(RootCerts::new_with_certs(&roots)).client_cert(own).build())
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::argument(format!("{name}: {}: {e}", path.display())))
}

fn certificates(name: &str, path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = read(name, path)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(c)) => Some(c),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::argument(format!("{name}: {} holds no certificate in PEM form", path.display())));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>> {
    let name = Certificates::KEY;
    let pem = read(name, path)?;
    PrivateKey::from_pem(&pem)
        .map_err(|_| Error::argument(format!("{name}: {} holds no private key in PEM form", path.display())))
}
