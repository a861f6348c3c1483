//! The file-copy examples' arguments that say who may write, and who may read along.
#![allow(clippy::unwrap_used, reason = "tests, and the helpers between them")]

mod support;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "../examples/file_copy/allow.rs"]
mod allow;
#[path = "../examples/file_copy/secure.rs"]
mod secure;

use allow::Allowed;
use secure::{ClientArgs, FailureKind, ServerArgs};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
struct Client {
    #[command(flatten)]
    security: ClientArgs,
}

#[derive(Debug, Parser)]
struct Server {
    #[command(flatten)]
    allowed: Allowed,
    #[command(flatten)]
    security: ServerArgs,
}

fn parse<T: Parser>(arguments: &[&str]) -> Result<T, String> {
    let line = std::iter::once(&"program").chain(arguments);
    T::try_parse_from(line).map_err(|error| error.to_string())
}

fn allowed(networks: &[&str]) -> Allowed {
    let arguments: Vec<_> = networks.iter().flat_map(|net| ["--allow", net]).collect();
    parse::<Server>(&arguments).unwrap().allowed
}

/// Files for one test; the secret's is closed to others.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        path.to_str().unwrap().to_owned()
    }

    #[cfg(feature = "tls")]
    fn certificate(&self, name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let cert = self.write(&format!("{name}-cert.pem"), &made.cert.pem());
        let key = self.write(
            &format!("{name}-key.pem"),
            &made.signing_key.serialize_pem(),
        );
        (cert, key)
    }
}

#[test]
fn addresses_are_looked_for_in_the_networks() {
    let nets = &["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"][..];
    let cases: &[(&str, &[&str], &str, bool)] = &[
        ("no list, IPv4", &[], "203.0.113.9", true),
        ("no list, IPv6", &[], "2001:db8::1", true),
        ("first of the net", nets, "192.0.2.0", true),
        ("last of the net", nets, "192.0.2.255", true),
        ("behind the net", nets, "192.0.3.0", false),
        ("before the net", nets, "192.0.1.255", false),
        ("IPv6", nets, "2001:db8:ffff::1", true),
        ("another IPv6", nets, "2001:db9::1", false),
        ("the address", nets, "198.51.100.7", true),
        ("the address's neighbour", nets, "198.51.100.8", false),
        ("mapped", nets, "::ffff:192.0.2.1", true),
        ("mapped, outside", nets, "::ffff:192.0.3.1", false),
        ("compatible is another thing", nets, "::192.0.2.1", false),
        (
            "a mapped net, plain",
            &["::ffff:192.0.2.0/120"],
            "192.0.2.1",
            true,
        ),
        (
            "a mapped net, mapped",
            &["::ffff:192.0.2.0/120"],
            "::ffff:192.0.2.1",
            true,
        ),
        (
            "a mapped net, outside",
            &["::ffff:192.0.2.0/120"],
            "192.0.3.1",
            false,
        ),
        ("a mapped address", &["::ffff:192.0.2.9"], "192.0.2.9", true),
        ("all of IPv4", &["0.0.0.0/0"], "203.0.113.9", true),
        (
            "all of IPv4, mapped",
            &["0.0.0.0/0"],
            "::ffff:203.0.113.9",
            true,
        ),
        ("all of IPv4, IPv6", &["0.0.0.0/0"], "2001:db8::1", false),
        ("all mapped", &["::ffff:0:0/96"], "203.0.113.9", true),
        ("all of IPv6", &["::/0"], "2001:db8::1", true),
        (
            "all of IPv6, mapped",
            &["::/0"],
            "::ffff:203.0.113.9",
            false,
        ),
    ];
    for (name, nets, address, expected) in cases {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(allowed(nets).check(address), *expected, "{name}");
    }
    assert!(allowed(&[]).is_everybody() && !allowed(nets).is_everybody());
    assert_eq!(
        allowed(nets).to_string(),
        "192.0.2.0/24, 2001:db8::/32, 198.51.100.7/32"
    );
}

#[test]
fn networks_that_are_none_are_usage_errors() {
    for text in [
        "",
        "192.0.2.0/33",
        "192.0.2/24",
        "example.org",
        "192.0.2.0/24/8",
        "::/129",
        "*",
    ] {
        let error = parse::<Server>(&["--allow", text]).unwrap_err();
        assert!(
            error.contains("neither ADDRESS/BITS nor an address"),
            "{text}: {error}"
        );
    }
    let error = parse::<Server>(&["--allow", "192.0.2.7/24"]).unwrap_err();
    assert!(error.contains("is 192.0.2.0/24 meant?"), "{error}");
}

#[test]
fn what_belongs_to_tls_needs_tls_and_the_other_way_round() {
    let client: &[(&[&str], &str)] = &[
        (&["--pin", "ab"], "--tls"),
        (&["--ca", "ca.pem"], "--tls"),
        (&["--tls-name", "server"], "--tls"),
        (&["--tls"], "--pin"),
        (&["--tls", "--tls-name", "server"], "--pin"),
        (
            &["--tls", "--pin", "ab", "--ca", "ca.pem"],
            "cannot be used with",
        ),
    ];
    for (arguments, expected) in client {
        let error = parse::<Client>(arguments).unwrap_err();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let server: &[(&[&str], &str)] = &[
        (&["--cert", "cert.pem", "--key", "key.pem"], "--tls"),
        (&["--tls"], "--cert"),
        (&["--tls", "--cert", "cert.pem"], "--key"),
        (&["--tls", "--key", "key.pem"], "--cert"),
        (&["--key", "key.pem"], "--tls"),
    ];
    for (arguments, expected) in server {
        let error = parse::<Server>(arguments).unwrap_err();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    parse::<Client>(&[]).unwrap();
    parse::<Client>(&["--tls", "--pin", "ab", "--pin", "cd", "--tls-name", "x"]).unwrap();
    parse::<Server>(&["--tls", "--cert", "a", "--key", "b", "--secret-file", "c"]).unwrap();
}

#[test]
fn secrets_come_from_their_files() {
    let files = Files::new();
    let good = files.write("good", "a secret of sixteen bytes or more\n");
    let short = files.write("short", "hunter2\n");
    let missing = files.0.path().join("missing").to_str().unwrap().to_owned();

    let client = parse::<Client>(&["--secret-file", &good]).unwrap();
    assert!(client.security.open().unwrap().secret().is_some());
    let server = parse::<Server>(&["--secret-file", &good]).unwrap();
    assert!(server.security.open().unwrap().secret().is_some());
    assert!(ClientArgs::default().open().unwrap().secret().is_none());

    for (path, expected) in [
        (short, "has 7 bytes"),
        (missing, "cannot read the secret file"),
    ] {
        let client = parse::<Client>(&["--secret-file", &path]).unwrap();
        let failure = client.security.open().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage);
        assert!(failure.to_string().contains(expected), "{failure}");
    }
}

#[test]
fn a_server_says_what_is_open() {
    let files = Files::new();
    let secret = files.write("secret", "a secret of sixteen bytes or more\n");
    let place = Path::new("incoming");
    let warning = |arguments: &[&str], who| {
        let server = parse::<Server>(arguments).unwrap();
        server.security.open().unwrap().warning(who, place)
    };
    let open = warning(&[], None).unwrap();
    assert!(
        open.contains("anyone who reaches this port can write below incoming"),
        "{open}"
    );
    assert!(!open.contains('\n'));
    let listed = warning(&[], Some("192.0.2.0/24")).unwrap();
    assert!(
        listed.contains("anyone in 192.0.2.0/24 can write"),
        "{listed}"
    );
    let readable = warning(&["--secret-file", &secret], None).unwrap();
    assert!(
        !readable.contains("can write below") && readable.contains("no --tls"),
        "{readable}"
    );
    #[cfg(feature = "tls")]
    {
        let (cert, key) = files.certificate("server");
        let tls = ["--tls", "--cert", &cert, "--key", &key];
        let unproven = warning(&tls, None).unwrap();
        assert!(unproven.contains("can write below") && !unproven.contains("no --tls"));
        let both = [&tls[..], &["--secret-file", &secret]].concat();
        assert_eq!(warning(&both, None), None);
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn without_the_feature_tls_is_a_usage_error_that_names_it() {
    let client = parse::<Client>(&["--tls", "--pin", "ab"]).unwrap();
    let failure = client.security.open().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Usage);
    assert!(failure.to_string().contains("feature `tls`"), "{failure}");
    let server = parse::<Server>(&["--tls", "--cert", "a", "--key", "b"]).unwrap();
    let failure = server.security.open().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Usage);
    assert!(failure.to_string().contains("feature `tls`"), "{failure}");
}

#[tokio::test]
async fn without_tls_the_connection_stays_what_it_is() {
    let (near, far) = support::pair().await;
    let client = ClientArgs::default().open().unwrap();
    let server = ServerArgs::default().open().unwrap();
    let client = client.connect("server:7777", near, PATIENCE).await.unwrap();
    let server = server.accept(far, PATIENCE).await.unwrap();
    assert!(client.binding().is_empty() && server.binding().is_empty());
    converse(client, server).await;
}

/// A word there and one back, and an orderly end.
async fn converse(mut client: secure::Channel, mut server: secure::Channel) {
    let ask = async {
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        let mut word = [0; 4];
        client.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"pong");
        client.shutdown().await.unwrap();
    };
    let answer = async {
        let mut word = [0; 4];
        server.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
        server.write_all(b"pong").await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(server.read(&mut word).await.unwrap(), 0);
        assert!(server.socket().stats().bytes_sent >= 4);
        server.shutdown().await.unwrap();
    };
    tokio::join!(ask, answer);
}

#[cfg(feature = "tls")]
mod with_tls {
    use super::*;

    async fn handshake(
        client: &[&str],
        server: &[&str],
        target: &str,
    ) -> (
        Result<secure::Channel, secure::Failure>,
        Result<secure::Channel, secure::Failure>,
    ) {
        let (near, far) = support::pair().await;
        let client = parse::<Client>(client).unwrap().security.open().unwrap();
        let server = parse::<Server>(server).unwrap().security.open().unwrap();
        tokio::join!(
            client.connect(target, near, PATIENCE),
            server.accept(far, PATIENCE)
        )
    }

    fn pin(server: &[&str]) -> String {
        let server = parse::<Server>(server).unwrap().security.open().unwrap();
        server.pin().unwrap()
    }

    #[tokio::test]
    async fn a_pin_or_a_ca_makes_a_channel() {
        let files = Files::new();
        let (cert, key) = files.certificate("server.example");
        let (other_cert, other_key) = files.certificate("other.example");
        let server = ["--tls", "--cert", &cert, "--key", &key];
        let other = ["--tls", "--cert", &other_cert, "--key", &other_key];
        let (right, wrong) = (pin(&server), pin(&other));
        let cases: &[(&str, &[&str], &str, Option<FailureKind>)] = &[
            ("pin", &["--tls", "--pin", &right], "192.0.2.1:1", None),
            (
                "of several",
                &["--tls", "--pin", &wrong, "--pin", &right],
                "[::1]:1",
                None,
            ),
            (
                "wrong pin",
                &["--tls", "--pin", &wrong],
                "server.example:1",
                Some(FailureKind::Refused),
            ),
            ("CA", &["--tls", "--ca", &cert], "server.example:1", None),
            (
                "another name",
                &["--tls", "--ca", &cert],
                "localhost:1",
                Some(FailureKind::Refused),
            ),
            (
                "the name",
                &["--tls", "--ca", &cert, "--tls-name", "server.example"],
                "localhost:1",
                None,
            ),
            (
                "wrong CA",
                &["--tls", "--ca", &other_cert],
                "server.example:1",
                Some(FailureKind::Refused),
            ),
            (
                "no name",
                &["--tls", "--pin", &right],
                "a b:1",
                Some(FailureKind::Usage),
            ),
        ];
        for (name, client, target, expected) in cases {
            let (near, far) = handshake(client, &server, target).await;
            let kind = near.as_ref().err().map(|failure| failure.kind);
            assert_eq!(kind, *expected, "{name}: {near:?}");
            assert_eq!(far.is_ok(), expected.is_none(), "{name}: {far:?}");
            if let (Ok(near), Ok(far)) = (near, far) {
                assert_eq!(near.binding(), far.binding());
                assert_eq!(near.binding().len(), 32);
                converse(near, far).await;
            }
        }
    }

    #[test]
    fn files_and_pins_that_cannot_be_used_are_usage_errors() {
        let missing = "/nonexistent/file.pem";
        for arguments in [["--tls", "--pin", "abc"], ["--tls", "--ca", missing]] {
            let client = parse::<Client>(&arguments).unwrap();
            let failure = client.security.open().unwrap_err();
            assert_eq!(failure.kind, FailureKind::Usage, "{arguments:?}: {failure}");
        }
        let server = parse::<Server>(&["--tls", "--cert", missing, "--key", missing]).unwrap();
        let failure = server.security.open().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage, "{failure}");
        assert!(failure.to_string().contains(missing), "{failure}");
    }

    /// The commands of docs/COPY.md, word by word.
    #[cfg(unix)]
    #[tokio::test]
    async fn the_documented_commands_make_what_is_needed() {
        let files = Files::new();
        let run = |beginning: &str| {
            let documented = include_str!("../docs/COPY.md");
            let command = documented.lines().find(|line| line.starts_with(beginning));
            let output = std::process::Command::new("sh")
                .args(["-c", command.unwrap()])
                .current_dir(files.0.path())
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{beginning}: {errors}");
            String::from_utf8(output.stdout).unwrap()
        };
        if std::process::Command::new("openssl")
            .arg("version")
            .output()
            .is_err()
        {
            println!("SKIPPED: openssl is not installed");
            return;
        }
        run("(umask 077; openssl rand");
        run("openssl req -x509");
        let printed = run("openssl x509 -in cert.pem");
        let (_, pin) = printed.trim().split_once('=').unwrap();
        let path = |name: &str| files.0.path().join(name).to_str().unwrap().to_owned();
        let (secret, cert, key) = (path("secret"), path("cert.pem"), path("key.pem"));
        let server = [
            "--tls",
            "--cert",
            &cert,
            "--key",
            &key,
            "--secret-file",
            &secret,
        ];
        for client in [
            &["--tls", "--pin", pin, "--secret-file", &secret][..],
            &["--tls", "--ca", &cert, "--secret-file", &secret],
        ] {
            let (near, far) = handshake(client, &server, "server.example:7777").await;
            converse(near.unwrap(), far.unwrap()).await;
        }
    }

    /// A client that says nothing costs the server its patience, and no more.
    #[tokio::test]
    async fn a_silent_client_is_given_up() {
        let files = Files::new();
        let (cert, key) = files.certificate("server");
        let (_near, far) = support::pair().await;
        let server = parse::<Server>(&["--tls", "--cert", &cert, "--key", &key]).unwrap();
        let server = server.security.open().unwrap();
        let failure = server
            .accept(far, Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Connection);
        assert!(failure.to_string().contains("within 50ms"), "{failure}");
    }
}
