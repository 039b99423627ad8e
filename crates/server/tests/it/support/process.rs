//! The binary as a process of its own, ended with the test.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Client, PATIENCE, prediction};

/// Where the smallest fixture is asked.
pub(crate) const HALF_PLUS_TWO: &str = "/v1/models/half_plus_two:predict";

/// The binary, with nothing of the surrounding environment.
pub(crate) fn millrace() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// `millrace serve` with ports of the system's choice and the log that [`Process`] reads.
pub(crate) fn serve(repository: impl AsRef<Path>) -> Command {
    let mut command = millrace();
    command.args(["serve", "--log-format", "json", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.arg(repository.as_ref());
    command
}

/// A running `millrace serve`. Its log is JSON, so that the harness learns the addresses from it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdout: Receiver<String>,
    log: Receiver<Value>,
    seen: RefCell<Vec<Value>>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
}

impl Process {
    /// Starts `command`, which must be `serve` with a port of the system's choice, and waits until it listens.
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (address, admin) = (SocketAddr::from(([0, 0, 0, 0], 0)), None);
        let mut this = Self { child, stdout: channel().1, log: channel().1, seen: RefCell::default(), address, admin };
        this.stdout = lines(this.child.stdout.take().expect("it is piped"), Some);
        this.log = lines::<ChildStderr, Value>(this.child.stderr.take().expect("it is piped"), |line| {
            serde_json::from_str(&line).ok()
        });
        let listening = this.logged("listening");
        let address = |name: &str| listening[name].as_str().and_then(|text| text.parse().ok());
        // Where the first is a Unix socket, the first that is not.
        let all = listening["all"].as_str().unwrap_or_default().split(", ");
        let first = address("address").or_else(|| all.into_iter().find_map(|text| text.parse().ok()));
        this.address = first.expect("the log names the address");
        this.admin = address("admin");
        this
    }

    /// Waits for a line of the log with this message.
    #[track_caller]
    pub(crate) fn logged(&self, message: &str) -> Value {
        loop {
            let event = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{message}` in the log"));
            self.seen.borrow_mut().push(event.clone());
            if event["message"].as_str().is_some_and(|text| text.contains(message)) {
                return event;
            }
        }
    }

    /// Every line of the log that has been waited for or passed over.
    pub(crate) fn log_so_far(&self) -> Vec<Value> {
        self.seen.borrow().clone()
    }

    /// What it has printed up to and with the line that `last` accepts.
    #[track_caller]
    pub(crate) fn printed_until(&self, last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut printed = Vec::new();
        loop {
            let line = self.stdout.recv_timeout(PATIENCE).expect("it prints more");
            printed.push(line);
            if printed.last().is_some_and(|line| last(line)) {
                return printed;
            }
        }
    }

    /// What is left of its output, once it has ended.
    pub(crate) fn rest_of_output(&self) -> Vec<String> {
        self.stdout.iter().collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it is our own child");
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// How far above what it holds now its memory rises during `act`, in bytes.
    pub(crate) fn peak_growth(&self, act: impl FnOnce()) -> u64 {
        // 5 is the kernel's word for forgetting the highest value so far.
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("it is our own child");
        let before = self.resident();
        act();
        self.status("VmHWM:").saturating_sub(before)
    }

    /// How long its threads have computed, all of them together.
    pub(crate) fn computed(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it lives");
        // A thread may end while its folder is read.
        let texts = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
        let nanos = |text: String| text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok());
        Duration::from_nanos(texts.filter_map(nanos).sum())
    }

    fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel says it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kilobytes") << 10
    }

    /// The number that its metrics page gives for the first line that starts with `name`, or 0.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = Client::connect(self.address).get("/metrics").text();
        let line = page.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Alive, ready, and `half_plus_two` gives x / 2 + 2 (version 1) or x / 2 + 3 (version 2).
    #[track_caller]
    pub(crate) fn is_well(&self) {
        let mut client = Client::connect(self.address);
        assert_eq!(client.get("/v2/health/live").status, 200);
        assert_eq!(client.get("/v2/health/ready").status, 200);
        let answer = client.post(HALF_PLUS_TWO, r#"{"instances": [4.0]}"#);
        assert!(answer.json() == prediction(4.0) || answer.json() == prediction(5.0), "{}", answer.text());
    }

    /// Ends it as no signal handler can see.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is our own child");
        self.child.wait().expect("it is our own child");
    }

    /// Waits for its end and gives its exit code.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        // Its log ends when it ends; that, unlike the process itself, can be waited for with a time limit.
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
        self.child.wait().expect("it is our own child").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines<R: Read + Send + 'static, T: Send + 'static>(
    from: R,
    parse: impl Fn(String) -> Option<T> + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let Some(value) = parse(line)
                && sender.send(value).is_err()
            {
                break;
            }
        }
    });
    receiver
}

/// Runs a command that ends by itself.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().expect("the binary starts")
}
