//! A blocking client that sends exactly the bytes it is given and reads answers one at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::PATIENCE;
use super::frames::parse;

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The status is `status`, and the body is TensorFlow Serving's error form with `text` in it.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, text: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let json = self.json();
        let error = json["error"].as_str().unwrap_or_else(|| panic!("no error in {json}"));
        assert!(error.contains(text), "`{error}` lacks `{text}`");
    }

    /// The answer is 200 with exactly this JSON.
    #[track_caller]
    pub(crate) fn gives(&self, json: &Value) {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(&self.json(), json);
    }

    /// The server says that it closes.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the server accepts")
    }

    /// A connection whose own kernel buffer holds next to nothing.
    #[track_caller]
    pub(crate) fn with_small_window(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("the option is known");
        socket.connect(&address.into()).expect("the server accepts");
        Self::over(socket.into()).expect("the options are known")
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// The bytes of a request.
    pub(crate) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let length = if method == "GET" { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{length}{headers}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes the bytes");
    }

    /// Sends what the server will take; it may close in between.
    pub(crate) fn send_anyway(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Another handle on the connection, for a thread that sends while this one reads.
    pub(crate) fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("the system has handles left")
    }

    /// No more bytes will follow.
    pub(crate) fn half_close(&self) {
        // The server may have closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.send(Self::request("GET", path, "", b""));
        self.reply()
    }

    #[track_caller]
    pub(crate) fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send(Self::request("POST", path, "", body.as_ref()));
        self.reply()
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().expect("an answer arrives").expect("the connection gives an answer before it closes")
    }

    /// The next answer, or `None` where the server closed before its first byte.
    pub(crate) fn try_reply(&mut self) -> io::Result<Option<Reply>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return self.body(&head).map(Some);
            }
            if self.fill()? == 0 {
                let empty = self.buffer.is_empty();
                return if empty { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn body(&mut self, head: &str) -> io::Result<Reply> {
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status = status.ok_or(ErrorKind::InvalidData)?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        let length = reply.header("content-length").map_or(0, |value| value.parse().expect("a length"));
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        reply.body = self.buffer.drain(..length).collect();
        Ok(reply)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        let n = loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// Waits until the server closes, in whatever way, and gives what it said before.
    #[track_caller]
    pub(crate) fn rest_until_close(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
                Err(error) => panic!("the server did not close: {error}"),
            }
        }
        std::mem::take(&mut self.buffer)
    }

    /// Reads HTTP/2 frames until one of this kind has come, and gives them all.
    #[track_caller]
    pub(crate) fn until_frame(&mut self, kind: u8) -> Vec<u8> {
        while !parse(&self.buffer).iter().any(|(known, _)| *known == kind) {
            assert!(self.fill().expect("more frames arrive") > 0, "it closed without the frame");
        }
        std::mem::take(&mut self.buffer)
    }

    /// Whole HTTP/2 frames, at least one.
    #[track_caller]
    pub(crate) fn some_frames(&mut self) -> Vec<u8> {
        loop {
            let whole: usize = parse(&self.buffer).iter().map(|(_, payload)| 9 + payload.len()).sum();
            if whole > 0 {
                return self.buffer.drain(..whole).collect();
            }
            assert!(self.fill().expect("more frames arrive") > 0, "it closed");
        }
    }

    /// Closes with a reset instead of a proper end.
    pub(crate) fn reset(self) {
        let socket = Socket::from(self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("the option is known");
        drop(socket);
    }
}
