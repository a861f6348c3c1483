use std::fs;
use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::*;

/// A certificate and its key.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Identity {
    fn new(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, key }
    }

    fn self_signed() -> Self {
        Self::new(&params("server"))
    }

    fn acceptor(&self) -> Acceptor {
        Acceptor::from_pem(self.certificate.pem(), self.key.serialize_pem()).unwrap()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.certificate.der())
    }

    fn pinned(&self) -> Connector {
        Connector::pinned(self.fingerprint()).unwrap()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    params.distinguished_name = distinguished;
    params
}

/// An authority that signs certificates.
struct Authority(Identity, CertificateParams);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(Identity::new(&params), params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let Self(identity, own) = self;
        let issuer = Issuer::from_params(own, &identity.key);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Identity { certificate, key }
    }

    fn connector(&self) -> Connector {
        Connector::with_ca_pem(self.0.certificate.pem()).unwrap()
    }
}

type Handshake = (
    Result<TlsStream<DuplexStream>, TlsError>,
    Result<TlsStream<DuplexStream>, TlsError>,
);

/// Both sides of a handshake: client, server.
async fn handshake(connector: &Connector, acceptor: &Acceptor, name: &str) -> Handshake {
    let (near, far) = duplex(64 * 1024);
    tokio::join!(connector.connect(name, near), acceptor.accept(far))
}

async fn connected() -> (TlsStream<DuplexStream>, TlsStream<DuplexStream>) {
    let identity = Identity::self_signed();
    let (client, server) = handshake(&identity.pinned(), &identity.acceptor(), "server").await;
    (client.unwrap(), server.unwrap())
}

fn problem(error: &TlsError) -> Option<CertificateProblem> {
    match error {
        TlsError::Certificate { problem, .. } => Some(*problem),
        _ => None,
    }
}

#[tokio::test]
async fn bytes_arrive_both_ways_and_ends_are_ends() {
    let (mut client, mut server) = connected().await;
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let echo = async {
        let mut bytes = Vec::new();
        server.read_to_end(&mut bytes).await.unwrap();
        server.write_all(&bytes).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let ask = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let (received, ()) = tokio::join!(ask, echo);
    assert!(received == sent);
    assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0, "and again");
}

#[tokio::test]
async fn nothing_readable_goes_over_the_wire() {
    let identity = Identity::self_signed();
    let (near, mut tap) = duplex(64 * 1024);
    let (mut relay, far) = duplex(64 * 1024);
    let (connector, acceptor) = (identity.pinned(), identity.acceptor());
    let client = async {
        let mut stream = connector.connect("server", near).await.unwrap();
        stream.write_all(b"a very secret file name").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let server = async {
        let mut stream = acceptor.accept(far).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        stream.shutdown().await.unwrap();
        text
    };
    let mut seen = Vec::new();
    let relaying = async {
        let mut buf = [0; 1024];
        let mut other = [0; 1024];
        loop {
            tokio::select! {
                read = tap.read(&mut buf) => {
                    let read = read.unwrap();
                    seen.extend_from_slice(&buf[..read]);
                    if read == 0 {
                        let _ = relay.shutdown().await;
                        break;
                    }
                    relay.write_all(&buf[..read]).await.unwrap();
                }
                read = relay.read(&mut other) => {
                    let read = read.unwrap();
                    tap.write_all(&other[..read]).await.unwrap();
                }
            }
        }
        // What the server still says.
        let _ = tokio::io::copy(&mut relay, &mut tap).await;
        let _ = tap.shutdown().await;
    };
    let ((), text, ()) = tokio::join!(client, server, relaying);
    assert_eq!(text, "a very secret file name");
    assert!(seen.len() > 200, "the relay saw the client's side");
    assert!(!seen.windows(6).any(|window| window == b"secret"));
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_refused_by_its_fingerprint() {
    let (identity, other) = (Identity::self_signed(), Identity::self_signed());
    let (client, server) = handshake(&other.pinned(), &identity.acceptor(), "server").await;
    let expected = TlsError::WrongPin {
        pinned: vec![other.fingerprint()],
        seen: identity.fingerprint(),
    };
    let error = client.unwrap_err();
    assert_eq!(error, expected);
    assert!(
        error
            .to_string()
            .contains(&identity.fingerprint().to_string())
    );
    let told = server.unwrap_err();
    assert!(matches!(told, TlsError::Handshake(_)), "{told:?}");
}

#[tokio::test]
async fn any_of_several_pins_will_do() {
    let identities = [(); 3].map(|()| Identity::self_signed());
    let [first, second, third] = &identities;
    let two = [first.fingerprint(), second.fingerprint()];
    let cases = [
        (&two[..], first, true),
        (&two[..], second, true),
        (&two[..], third, false),
        (&[], first, false),
    ];
    for (pins, identity, is_trusted) in cases {
        let connector = Connector::pinned_to_any(pins.iter().copied()).unwrap();
        let (client, _) = handshake(&connector, &identity.acceptor(), "server").await;
        let expected = (!is_trusted).then(|| TlsError::WrongPin {
            pinned: pins.to_vec(),
            seen: identity.fingerprint(),
        });
        assert_eq!(client.err(), expected);
    }
}

/// Certificates are public: whoever saw one can show it, and not prove it.
#[tokio::test]
async fn a_pinned_certificate_without_its_key_is_refused() {
    let (identity, thief) = (Identity::self_signed(), Identity::self_signed());
    let key = pem::private_key(thief.key.serialize_pem().as_bytes(), None).unwrap();
    let certified = CertifiedKey::new(
        vec![identity.certificate.der().clone()],
        any_supported_type(&key).unwrap(),
    );
    let config = versions(ServerConfig::builder_with_provider(provider()))
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let acceptor = Acceptor {
        config: Arc::new(config),
        fingerprint: identity.fingerprint(),
    };
    let (client, server) = handshake(&identity.pinned(), &acceptor, "server").await;
    let error = client.unwrap_err();
    assert_eq!(
        problem(&error),
        Some(CertificateProblem::BadSignature),
        "{error:?}"
    );
    assert!(server.is_err());
}

#[tokio::test]
async fn a_pin_stands_for_names_and_dates_too() {
    let mut params = params("elsewhere");
    params.not_after = date_time_ymd(2001, 1, 1);
    let identity = Identity::new(&params);
    let (client, server) = handshake(&identity.pinned(), &identity.acceptor(), "192.0.2.1").await;
    assert!(client.is_ok() && server.is_ok(), "{client:?} {server:?}");
}

#[tokio::test]
async fn certificates_of_a_ca_are_checked() {
    let authority = Authority::new("authority");
    let stranger = Authority::new("stranger");
    // As if the stranger had taken its name.
    let impostor = Authority::new("authority");
    let connector = authority.connector();
    let mut expired = params("server");
    expired.not_after = date_time_ymd(2001, 1, 1);
    let mut early = params("server");
    early.not_before = date_time_ymd(4000, 1, 1);
    let cases = [
        ("right", authority.sign(&params("server")), None),
        (
            "by address",
            authority.sign(&params("192.0.2.1")),
            Some(CertificateProblem::WrongName),
        ),
        (
            "wrong name",
            authority.sign(&params("other")),
            Some(CertificateProblem::WrongName),
        ),
        (
            "expired",
            authority.sign(&expired),
            Some(CertificateProblem::Expired),
        ),
        (
            "too early",
            authority.sign(&early),
            Some(CertificateProblem::NotYetValid),
        ),
        (
            "wrong CA",
            stranger.sign(&params("server")),
            Some(CertificateProblem::UnknownIssuer),
        ),
        (
            "a CA of that name",
            impostor.sign(&params("server")),
            Some(CertificateProblem::BadSignature),
        ),
        (
            "self-signed",
            Identity::self_signed(),
            Some(CertificateProblem::UnknownIssuer),
        ),
    ];
    for (name, identity, expected) in cases {
        let (client, server) = handshake(&connector, &identity.acceptor(), "server").await;
        assert_eq!(
            client.as_ref().err().and_then(problem),
            expected,
            "{name}: {client:?}"
        );
        assert_eq!(server.is_ok(), expected.is_none(), "{name}: {server:?}");
        assert_eq!(client.is_ok(), expected.is_none(), "{name}: {client:?}");
    }
    let by_address = authority.sign(&params("192.0.2.1"));
    let (client, _) = handshake(&connector, &by_address.acceptor(), "192.0.2.1").await;
    assert!(client.is_ok(), "{client:?}");
}

#[tokio::test]
async fn names_that_are_none_are_refused_before_anything_is_sent() {
    let identity = Identity::self_signed();
    for name in ["", "a b", "host:7777", "[::1]", "a..b"] {
        let (near, mut far) = duplex(1024);
        let error = identity.pinned().connect(name, near).await.unwrap_err();
        assert_eq!(error, TlsError::Name(name.into()));
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        assert!(sent.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn each_channel_has_a_binding_of_its_own_that_both_ends_know() {
    let identity = Identity::self_signed();
    let (connector, acceptor) = (identity.pinned(), identity.acceptor());
    let mut bindings = Vec::new();
    for _ in 0..2 {
        let (client, server) = handshake(&connector, &acceptor, "server").await;
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.binding(), server.binding());
        bindings.push(client.binding());
    }
    assert_ne!(bindings[0], bindings[1]);
    assert_ne!(bindings[0], [0; 32]);
}

#[tokio::test]
async fn a_stream_that_was_cut_is_no_end() {
    let (mut client, mut server) = connected().await;
    server.write_all(b"half of it").await.unwrap();
    server.flush().await.unwrap();
    // Ends the stream below as somebody on the way could.
    server.get_mut().shutdown().await.unwrap();
    let mut bytes = Vec::new();
    let error = client.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(bytes, b"half of it");
}

#[tokio::test]
async fn tampering_is_found() {
    let (mut client, mut server) = connected().await;
    // A record of application data as long as it says, and of nothing that was ever encrypted.
    let forged = [&[23, 3, 3, 0, 32][..], &[0x55; 32]].concat();
    server.get_mut().write_all(&forged).await.unwrap();
    let error = client.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn peers_that_speak_something_else_or_leave_are_errors() {
    let identity = Identity::self_signed();
    let acceptor = identity.acceptor();
    let (mut near, far) = duplex(1024);
    near.write_all(b"rudpcopy\0\x02\0\x02\0\0\0\0 and more")
        .await
        .unwrap();
    let error = acceptor.accept(far).await.unwrap_err();
    assert!(matches!(error, TlsError::Handshake(_)), "{error:?}");

    let (near, far) = duplex(1024);
    drop(near);
    let error = acceptor.accept(far).await.unwrap_err();
    let eof = TlsError::Connection(Arc::new(io::ErrorKind::UnexpectedEof.into()));
    assert_eq!(error, eof);

    let (near, far) = duplex(64 * 1024);
    let client = async {
        let mut far = far;
        let mut hello = [0; 5];
        far.read_exact(&mut hello).await.unwrap();
    };
    let connector = identity.pinned();
    let (connected, ()) = tokio::join!(connector.connect("server", near), client);
    let error = connected.unwrap_err();
    assert!(matches!(error, TlsError::Connection(_)), "{error:?}");
}

#[tokio::test]
async fn protocols_are_agreed_on() {
    let identity = Identity::self_signed();
    let (connector, acceptor) = (identity.pinned(), identity.acceptor());
    let both = connector.clone().alpn(["b", "a"]);
    let server = acceptor.clone().alpn(["a"]);
    let (client, accepted) = handshake(&both, &server, "server").await;
    assert_eq!(client.unwrap().alpn(), Some(&b"a"[..]));
    assert_eq!(accepted.unwrap().alpn(), Some(&b"a"[..]));

    let (client, _) = handshake(&both, &acceptor, "server").await;
    assert_eq!(client.unwrap().alpn(), None, "one side names none");

    let (client, accepted) = handshake(&connector.alpn(["c"]), &server, "server").await;
    assert!(matches!(client, Err(TlsError::Handshake(_))), "{client:?}");
    assert!(
        matches!(accepted, Err(TlsError::Handshake(_))),
        "{accepted:?}"
    );
}

/// Each connection checks the certificate anew, even if one side would rather remember the other.
#[tokio::test]
async fn no_session_is_resumed() {
    use tokio_rustls::rustls::HandshakeKind;
    use tokio_rustls::rustls::server::ServerSessionMemoryCache;

    let identity = Identity::self_signed();
    let (connector, acceptor) = (identity.pinned(), identity.acceptor());
    let mut eager_client = connector.clone();
    Arc::make_mut(&mut eager_client.config).resumption = Resumption::in_memory_sessions(8);
    let mut eager_server = acceptor.clone();
    let config = Arc::make_mut(&mut eager_server.config);
    config.session_storage = ServerSessionMemoryCache::new(8);
    config.send_tls13_tickets = 2;
    let cases = [
        ("ours", &connector, &acceptor, HandshakeKind::Full),
        (
            "an eager client",
            &eager_client,
            &acceptor,
            HandshakeKind::Full,
        ),
        (
            "an eager server",
            &connector,
            &eager_server,
            HandshakeKind::Full,
        ),
        (
            "both: the test sees it",
            &eager_client,
            &eager_server,
            HandshakeKind::Resumed,
        ),
    ];
    for (name, connector, acceptor, expected) in cases {
        let mut kind = None;
        for _ in 0..2 {
            let (client, server) = handshake(connector, acceptor, "server").await;
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            // A ticket would come with the first bytes.
            server.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            let (_, connection) = client.inner.get_ref();
            kind = connection.handshake_kind();
        }
        assert_eq!(kind, Some(expected), "{name}");
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let identity = Identity::self_signed();
    let other = Identity::self_signed();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let cert = write("cert.pem", &identity.certificate.pem());
    let key = write("key.pem", &identity.key.serialize_pem());
    let other_key = write("other.pem", &other.key.serialize_pem());
    let cut = write("cut.pem", &identity.certificate.pem()[..100]);
    let garbage = write(
        "garbage.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let empty = write("empty.pem", "");
    let missing = directory.path().join("missing.pem");

    let acceptor = Acceptor::from_files(&cert, &key).unwrap();
    assert_eq!(acceptor.fingerprint(), identity.fingerprint());
    assert_eq!(fingerprint(&cert).unwrap(), identity.fingerprint());
    assert!(Connector::with_ca(&cert).is_ok());

    let absent = TlsError::Read {
        path: missing.clone(),
        source: Arc::new(io::ErrorKind::NotFound.into()),
    };
    assert_eq!(Acceptor::from_files(&missing, &key).unwrap_err(), absent);
    assert_eq!(Acceptor::from_files(&cert, &missing).unwrap_err(), absent);
    assert_eq!(Connector::with_ca(&missing).unwrap_err(), absent);
    assert_eq!(fingerprint(&missing).unwrap_err(), absent);

    let no_key = Acceptor::from_files(&cert, &cert).unwrap_err();
    let text = format!("private key in PEM is missing in {}", cert.display());
    assert_eq!(no_key.to_string(), text);
    let no_cert = Acceptor::from_files(&key, &key).unwrap_err();
    let text = format!("certificate in PEM is missing in {}", key.display());
    assert_eq!(no_cert.to_string(), text);
    for path in [&empty, &cut] {
        let error = Connector::with_ca(path).unwrap_err();
        assert!(matches!(error, TlsError::Pem { .. }), "{error:?}");
    }
    let mixed = Acceptor::from_files(&cert, &other_key).unwrap_err();
    assert!(matches!(mixed, TlsError::Identity(_)), "{mixed:?}");
    let error = Acceptor::from_files(&garbage, &key).unwrap_err();
    assert!(matches!(error, TlsError::Identity(_)), "{error:?}");
    let error = Connector::with_ca(&garbage).unwrap_err();
    assert!(matches!(error, TlsError::Authority(_)), "{error:?}");
}

#[test]
fn keys_are_not_shown() {
    let identity = Identity::self_signed();
    let shown = format!("{:?} {:?}", identity.acceptor(), identity.pinned());
    let print = identity.fingerprint();
    let expected =
        format!("Acceptor {{ fingerprint: {print}, .. }} Connector {{ pins: [{print}], .. }}");
    assert_eq!(shown, expected);
}

#[test]
fn fingerprints_are_read_as_openssl_prints_them() {
    // FIPS 180-2, appendix B.1
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Fingerprint::of(b"abc").to_string(), abc);
    let colons = "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";
    let read = |text: &str| text.parse::<Fingerprint>();
    for text in [abc, &abc.to_uppercase(), colons] {
        assert_eq!(read(text), Ok(Fingerprint::of(b"abc")), "{text}");
    }
    let cases = [
        ("empty", String::new()),
        ("short", abc[1..].to_owned()),
        ("long", format!("{abc}a")),
        ("no digit", abc.replace('b', "g")),
        ("a sign", abc.replacen('b', "+", 1)),
        ("colons elsewhere", colons.replacen("BA:7", "B:A7", 1)),
        ("dashes", colons.replace(':', "-")),
        (
            "SHA-1",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709".to_owned(),
        ),
        ("wide digits", "é".repeat(32)),
    ];
    for (name, text) in cases {
        assert_eq!(
            read(&text),
            Err(TlsError::Fingerprint(text.clone())),
            "{name}"
        );
    }
}
