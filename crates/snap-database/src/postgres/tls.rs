//! TLS to a server, as strict as `sslmode` says.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, StreamOwned,
};

use super::settings::{Settings, TlsMode};
use super::wire::WireError;

pub(super) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Makes the socket speak TLS. The handshake takes place with the first bytes.
pub(super) fn start(socket: TcpStream, host: &str, settings: &Settings) -> Result<TlsStream, WireError> {
    let failed = |why: String| WireError::Login(format!("TLS to {settings}: {why}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(settings, &provider).map_err(failed)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
    let client = ClientConnection::new(Arc::new(config), name).map_err(|error| failed(error.to_string()))?;
    Ok(StreamOwned::new(client, socket))
}

fn verifier(settings: &Settings, provider: &Arc<CryptoProvider>) -> Result<Verifier, String> {
    let roots = match settings.tls {
        TlsMode::VerifyCa | TlsMode::VerifyFull => Some(roots(settings)?),
        // As libpq does: a file of roots is there to be used.
        TlsMode::Require if settings.root_certificates.is_some() => Some(roots(settings)?),
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => None,
    };
    let (mut chain, mut believed) = (None, Vec::new());
    if let Some((roots, own)) = roots {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        chain = Some(builder.build().map_err(|error| error.to_string())?);
        believed = own;
    }
    let checks_name = settings.tls == TlsMode::VerifyFull;
    Ok(Verifier { chain, believed, checks_name, provider: Arc::clone(provider) })
}

/// Those to believe, and among them those of the user's own file.
fn roots(settings: &Settings) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let (mut roots, mut own) = (RootCertStore::empty(), Vec::new());
    let Some(file) = &settings.root_certificates else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok((roots, own));
    };
    let failed = |error: &dyn std::fmt::Display| format!("the certificates in {}: {error}", file.display());
    let pem = fs::read(file).map_err(|error: io::Error| failed(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate.clone()).map_err(|error| failed(&error))?;
        own.push(certificate);
    }
    Ok((roots, own))
}

/// What libpq checks in each mode: nothing, who signed the certificate, or also whose it is.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that need no chain: a server's own may be among them, signed by itself.
    believed: Vec<CertificateDer<'static>>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            // An authority that shows its own certificate: webpki has no word of its own for that.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.believed.contains(end_entity) =>
            {
                if self.checks_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
