//! Where the server listens: Unix sockets, other servers' ports, and what each listener answers.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use millrace_server::{Address, Compat, Drained, Roles, Server, ServerConfig, StartError};
use millrace_testkit::{FakeBackend, Gate};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Client, DOUBLE, PATIENCE, Process, Repository, TestServer, millrace, output, prediction};

const GOOD: &str = r#"{"instances": [1.0]}"#;

/// A server on a Unix socket only.
fn on_socket(path: &Path) -> TestServer {
    TestServer::double(|config| config.listen = vec![Address::Unix(path.to_owned())])
}

/// Sends a request for the prediction and leaves the connection open for its answer.
fn ask(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&Client::request("POST", DOUBLE, "connection: close\r\n", GOOD.as_bytes())).unwrap();
    stream
}

/// The answer: its status line and its body.
fn answer(mut stream: UnixStream) -> (String, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers and closes");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    (head.lines().next().unwrap().to_owned(), serde_json::from_str(body).expect("its body is JSON"))
}

#[track_caller]
fn is_served(path: &Path) {
    assert_eq!(answer(ask(path)), ("HTTP/1.1 200 OK".to_owned(), prediction(2.0)));
}

/// Why a server on `address` does not start.
#[track_caller]
fn refused(address: Address) -> String {
    let repository = Repository::new();
    let mut config = ServerConfig::repository(repository.path());
    (config.listen, config.admin) = (vec![address], Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(Server::start(config)) {
        Err(StartError::Bind(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_unix_socket_serves_what_a_port_serves() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("millrace.sock");
    let server = on_socket(&path);
    assert_eq!(server.server.local_addr(), &Address::Unix(path.clone()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    is_served(&path);
    // HTTP/2 too.
    let body = server.runtime().block_on(async {
        let io = TokioIo::new(tokio::net::UnixStream::connect(&path).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://localhost{DOUBLE}")).body(Full::new(Bytes::from(GOOD))).unwrap();
        sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
    });
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), prediction(2.0));
    // Nothing else lies beside it, and it goes with the server.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let drain = server.begin_drain();
    assert_eq!(server.wait(drain), Drained::Complete);
    assert!(!path.exists());
}

#[test]
fn the_permissions_of_a_unix_socket_are_the_operators() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s");
    let _server = TestServer::double(|config| {
        config.listen = vec![Address::Unix(path.clone())];
        config.socket_mode = 0o600;
    });
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn ports_and_sockets_serve_side_by_side() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s");
    let server = TestServer::double(|config| {
        config.listen.push(Address::Unix(path.clone()));
        config.admin = vec![Address::Unix(folder.path().join("admin"))];
    });
    is_served(&path);
    server.is_well();
    let mut admin = UnixStream::connect(folder.path().join("admin")).unwrap();
    admin.write_all(b"GET /admin/models HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(answer(admin).0, "HTTP/1.1 200 OK");
}

#[test]
fn what_a_killed_process_has_left_is_replaced_and_what_is_in_use_is_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s");
    // As after a kill: the file stays, nobody listens.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = on_socket(&path);
    is_served(&path);
    let said = refused(Address::Unix(path.clone()));
    assert!(said.contains("another process listens there") && said.contains("(--listen)"), "{said}");
    is_served(&path);
    drop(server);
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    let said = refused(Address::Unix(file.clone()));
    assert!(said.contains("something else"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let said = refused(Address::Unix(folder.path().join("no/such/s")));
    assert!(said.contains("its folder does not exist"), "{said}");
}

#[test]
fn with_reuse_port_the_newest_takes_the_path_over() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s");
    let start = || {
        TestServer::double(|config| {
            config.listen = vec![Address::Unix(path.clone())];
            config.reuse_port = true;
        })
    };
    let old = start();
    let before = fs::metadata(&path).unwrap().ino();
    let new = start();
    let after = fs::metadata(&path).unwrap().ino();
    assert_ne!(before, after);
    let drain = old.begin_drain();
    assert_eq!(old.wait(drain), Drained::Complete);
    // The old one leaves what is not its own.
    assert_eq!(fs::metadata(&path).unwrap().ino(), after);
    is_served(&path);
    drop(new);
}

#[test]
fn row_74_a_unix_socket_drains_like_a_port() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s");
    let gate = Gate::opened();
    let backend = FakeBackend::default().run_gate(gate.clone());
    let server = TestServer::fake(Repository::new().fake("double", 1, 2.0, 0.0), backend, |config| {
        config.listen.push(Address::Unix(path.clone()));
        config.drain_timeout = PATIENCE;
    });
    gate.close();
    let before = gate.arrived();
    let in_flight = ask(&path);
    gate.wait_for(before + 1);
    let drain = server.begin_drain();
    // Refused while the other is in flight, once draining has come so far.
    let refused = loop {
        let mut probe = UnixStream::connect(&path).unwrap();
        probe.write_all(&Client::request("POST", DOUBLE, "connection: close\r\n", b"{")).unwrap();
        let (status, body) = answer(probe);
        if status.contains("503") {
            break body;
        }
    };
    assert!(refused["error"].is_string());
    gate.open();
    assert_eq!(answer(in_flight), ("HTTP/1.1 200 OK".to_owned(), prediction(2.0)));
    assert_eq!(server.wait(drain), Drained::Complete);
    assert!(!path.exists());
}

/// A loopback address that no other test listens on, nor another run of this one.
fn own_host(test: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 100 + test, high, low.max(1))
}

fn on(host: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((host, port))
}

#[test]
fn the_ports_of_other_servers_answer_by_their_roles() {
    let host = own_host(0);
    let server = TestServer::double(|config| {
        config.listen = vec![on(host, 8080).into()];
        config.admin = vec![on(host, 8081).into()];
        config.compat = vec![Compat::Tfs, Compat::Triton, Compat::Torchserve];
    });
    let ports = |wanted: Roles| -> Vec<u16> {
        let listening = server.server.listening().iter().filter(|one| one.roles == wanted);
        let mut ports: Vec<u16> = listening.map(|one| one.address.tcp().unwrap().port()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports(Roles::DATA), [7070, 8000, 8001, 8080, 8500, 8501]);
    assert_eq!(ports(Roles::ADMIN), [7071, 8081]);
    assert_eq!(ports(Roles::METRICS), [8002, 8082]);
    for one in server.server.listening() {
        let mut client = Client::connect(one.address.tcp().unwrap());
        let infers = client.post(DOUBLE, GOOD).status == 200;
        assert_eq!(infers, one.roles.inference, "{one:?}");
        let mut client = Client::connect(one.address.tcp().unwrap());
        let orders = client.get("/admin/models").status == 200;
        assert_eq!(orders, one.roles.management, "{one:?}");
        for path in ["/metrics", "/v2/health/ready"] {
            assert_eq!(client.get(path).status, 200, "{path} {one:?}");
        }
    }
}

#[test]
fn an_address_that_is_given_twice_is_one_listener_with_both_roles() {
    let host = own_host(1);
    let server = TestServer::double(|config| {
        config.listen = vec![on(host, 8080).into()];
        config.admin = vec![on(host, 8080).into()];
    });
    assert_eq!(server.server.listening().len(), 1);
    assert_eq!(server.server.admin_addr(), Some(server.server.local_addr()));
    server.is_well();
    assert_eq!(server.client().get("/admin/models").status, 200);
}

#[test]
fn row_82_a_port_of_another_server_that_is_taken_is_named_with_its_flag() {
    let host = own_host(2);
    let _taken = TcpListener::bind(on(host, 8501)).unwrap();
    let repository = Repository::new();
    let serve = |listen: &str, admin: &str| {
        let words = ["serve", "--listen", listen, "--admin", admin, "--compat", "tfs"];
        let output = output(millrace().args(words).arg(repository.path()));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = serve(&format!("{host}:0"), "off");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {host}:8501 (--compat tfs): the port is in use")), "{said}");
    // What can never be is a wrong configuration, whoever listens now.
    let (code, said) = serve("0.0.0.0:8081", &format!("{host}:8081"));
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("--listen wants 0.0.0.0:8081") && said.contains(&format!("--admin wants {host}:8081")),
        "{said}"
    );
}

#[test]
fn a_process_on_a_unix_socket_prints_a_line_that_can_be_pasted_and_cleans_up() {
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join("s");
    let address = format!("unix:{}", path.display());
    let repository = Repository::new().copy("models/half_plus_two/1", "half_plus_two", 1);
    let mut command = millrace();
    command.args(["serve", "--log-format", "json", "--listen", &address, "--listen", "127.0.0.1:0", "--admin", "off"]);
    command.arg(repository.path()).env("XDG_STATE_HOME", folder.path().join("state"));
    let mut process = Process::start(&mut command);
    let printed = process.printed_until(|line| line.starts_with("curl "));
    let line = printed.last().unwrap();
    let expected = format!("curl --unix-socket '{}' http://localhost/v1/models/half_plus_two:predict", path.display());
    assert!(line.starts_with(&expected), "{line}");
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn the_limit_of_connections_is_each_listeners_own() {
    let server = TestServer::double(|config| {
        config.connections.max_connections = 1;
        config.connections.idle_timeout = Duration::from_secs(60);
    });
    let mut data = server.client();
    data.post(DOUBLE, GOOD).gives(&prediction(2.0));
    assert_eq!(server.admin().get("/admin/models").status, 200);
    data.post(DOUBLE, GOOD).gives(&prediction(2.0));
}
