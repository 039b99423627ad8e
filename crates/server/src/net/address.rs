//! Where a listener listens: a TCP address or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How the address of a Unix socket begins.
const UNIX: &str = "unix:";
/// The longest path of a Unix socket, in bytes. The kernel takes 107; some are left for the name that a socket has
/// while it is being made.
const LONGEST_PATH: usize = 96;

/// Where a listener listens: `127.0.0.1:8080`, `[::]:8080` or `unix:/run/millrace.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl Address {
    /// The IP address and port, where it has them.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path, where it is a Unix socket's.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Whether both cannot be listened on at once although they differ: a wildcard address covers every other one.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (Self::Tcp(one), Self::Tcp(two)) = (self, other) else { return false };
        let covers = |wide: &SocketAddr, narrow: &SocketAddr| {
            // `[::]` takes connections of both families.
            wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
        };
        one != two && one.port() == two.port() && one.port() != 0 && (covers(one, two) || covers(two, one))
    }

    /// Whether two wishes for it are one listener. With port 0 each gets a port of its own.
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        self == other && self.tcp().is_none_or(|address| address.port() != 0)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither form.
    #[error("not an address; write IP:PORT, such as 0.0.0.0:8080, or unix:/PATH")]
    Form,
    /// `unix:` and nothing behind it.
    #[error("`unix:` wants a path, such as unix:/run/millrace.sock")]
    NoPath,
    /// A path that the system does not take for a socket.
    #[error("a socket's path has at most {LONGEST_PATH} bytes; this one has {0}")]
    TooLong(usize),
}

/// Reads numbers only: no name is looked up.
impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Self::Tcp).map_err(|_| AddressError::Form);
        };
        // Two slashes as in a URL, and then the path's own.
        let path = if path.starts_with("///") { &path[2..] } else { path };
        match path.len() {
            0 => Err(AddressError::NoPath),
            length if length > LONGEST_PATH => Err(AddressError::TooLong(length)),
            _ => Ok(Self::Unix(PathBuf::from(path))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError};

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_reads_as_it_is_printed() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/m.sock", "unix:m.sock"] {
            assert_eq!(address(text).to_string(), text);
        }
        assert_eq!(address("unix:///run/m.sock"), address("unix:/run/m.sock"));
        assert_eq!("unix:".parse::<Address>(), Err(AddressError::NoPath));
        assert_eq!(format!("unix:/{}", "x".repeat(96)).parse::<Address>(), Err(AddressError::TooLong(97)));
        for text in ["", "8080", "localhost", "unix", "/run/m.sock"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Form), "{text}");
        }
    }

    #[test]
    fn a_wildcard_overlaps_what_it_covers() {
        for (one, two, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("0.0.0.0:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:0", "127.0.0.1:0", false),
            ("0.0.0.0:80", "unix:/80", false),
        ] {
            assert_eq!(address(one).overlaps(&address(two)), expected, "{one} {two}");
            assert_eq!(address(two).overlaps(&address(one)), expected, "{two} {one}");
        }
    }
}
