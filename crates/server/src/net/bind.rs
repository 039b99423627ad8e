//! Opening a listening socket, with an error that says what to do.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::address::Address;
use super::socket::{Listener, SocketFile};

/// Connections that the kernel holds for us while accepting waits.
const BACKLOG: i32 = 1024;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({wished_by}): {}", advice(.address, .cause))]
pub struct BindError {
    address: Address,
    /// The flags that want it.
    wished_by: String,
    #[source]
    cause: io::Error,
}

/// How sockets are opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BindOptions {
    /// Several processes may listen on the address. The kernel deals TCP connections out among them; a Unix socket's
    /// path goes to the newest.
    pub(crate) reuse: bool,
    /// The permissions of a Unix socket's file.
    pub(crate) socket_mode: u32,
}

/// Listens on `address`, which the flags named by `wished_by` want. Must be called inside a tokio runtime.
pub(crate) fn bind(address: &Address, wished_by: &str, options: BindOptions) -> Result<Listener, BindError> {
    let opened = match address {
        Address::Tcp(address) => tcp(*address, options.reuse).map(Listener::Tcp),
        Address::Unix(path) => unix(path, options),
    };
    opened.map_err(|cause| BindError { address: address.clone(), wished_by: wished_by.to_owned(), cause })
}

fn tcp(address: SocketAddr, reuse: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old process's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if reuse {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes the socket under a name of its own and then moves it to `path`: whoever connects there finds either nothing,
/// or the predecessor, or a socket that listens and has its permissions.
fn unix(path: &Path, options: BindOptions) -> io::Result<Listener> {
    may_be_replaced(path, options.reuse)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let own = Path::new(&name);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let address = SockAddr::unix(own)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        // A process of this number was killed at this very point.
        fs::remove_file(own)?;
        socket.bind(&address)?;
    }
    let moved: io::Result<SocketFile> = (|| {
        // Nobody can connect before `listen`, so nobody gets in under other permissions.
        fs::set_permissions(own, fs::Permissions::from_mode(options.socket_mode))?;
        socket.listen(BACKLOG)?;
        let file = SocketFile::at(own, path)?;
        fs::rename(own, path)?;
        Ok(file)
    })();
    if moved.is_err() {
        // It lies there for nothing; the error that is reported is the one before.
        let _ = fs::remove_file(own);
    }
    Ok(Listener::Unix(UnixListener::from_std(socket.into())?, moved?))
}

/// Whether nothing lies at `path` but, perhaps, a socket that nobody listens on.
fn may_be_replaced(path: &Path, reuse: bool) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if reuse {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        // It is listened on, or it is not ours to judge.
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

fn advice(address: &Address, cause: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, AlreadyExists, NotFound, PermissionDenied};
    let text = match (address, cause.kind()) {
        (Address::Tcp(_), AddrInUse) => "the port is in use; stop the other process or choose another port",
        (Address::Tcp(_), PermissionDenied) => "not permitted; choose a port above 1023",
        (Address::Tcp(_), AddrNotAvailable) => "this machine does not have that address",
        (Address::Unix(_), AddrInUse) => "another process listens there; stop it or choose another path",
        (Address::Unix(_), AlreadyExists) => "there is something else at that path; remove it or choose another path",
        (Address::Unix(_), PermissionDenied) => "not permitted; choose a folder that this user may write",
        (Address::Unix(_), NotFound) => "its folder does not exist",
        _ => return cause.to_string(),
    };
    text.to_owned()
}
