//! Requests as fast as they are answered, by `wrk -t1`: it takes one core and the server another. Where `wrk` is the
//! slower one, CPU per request tells more than requests per second.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::servers::Way;
use super::{cpu, proportional, resident};

/// The figures of a drive, in which unit. Of what, its constants say.
pub const FIGURES: [(&str, &str); 4] = [
    ("requests/s", ""),
    ("CPU per request", ", us"),
    ("memory, resident", ", KiB"),
    ("memory, proportional", ", KiB"),
];
pub const RATE: usize = 0;
pub const CPU: usize = 1;
pub const RESIDENT: usize = 2;
pub const PROPORTIONAL: usize = 3;

/// How a server is driven.
pub struct Load {
    wrk: PathBuf,
    connections: usize,
    secs: u64,
    options: Vec<String>,
    openssl_conf: Option<PathBuf>,
}

impl Load {
    pub fn of(wrk: &Path, connections: usize, secs: u64) -> Load {
        let wrk = wrk.to_owned();
        Load { wrk, connections, secs, options: Vec::new(), openssl_conf: None }
    }

    /// With what else `wrk` is told.
    pub fn with(mut self, options: &[&str]) -> Load {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Under this configuration of OpenSSL.
    pub fn under(mut self, openssl_conf: &Path) -> Load {
        self.openssl_conf = Some(openssl_conf.to_owned());
        self
    }

    /// Drives a server, and returns the [`FIGURES`].
    pub fn drive(&self, way: &Way, path: &str) -> [f64; FIGURES.len()] {
        let Load { wrk, connections, secs, options, openssl_conf } = self;
        let mut command = Command::new(wrk);
        command.args(["-t1", &format!("-c{connections}"), &format!("-d{secs}s")]).args(options);
        command.arg(way.url(path)).stdout(Stdio::piped());
        command.envs(openssl_conf.iter().map(|path| ("OPENSSL_CONF", path)));
        let before = cpu(way.worker);
        let mut driving = command.spawn().expect("wrk starts");
        sleep(Duration::from_millis(secs * 500)); // Memory is looked at in the middle.
        let memory = [resident, proportional].map(|of| way.memory(of));
        let mut said = String::new();
        driving.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(driving.wait().expect("wrk ends").success(), "{said}");
        let spent = cpu(way.worker) - before;
        let failures = ["Non-2xx", "Socket errors"];
        assert!(!failures.iter().any(|it| said.contains(it)), "{}: {said}", way.name);
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok());
        let requests = said.lines().find_map(|line| Some(line.split_once(" requests in ")?.0));
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        let (requests, rate) = number(requests).zip(number(rate)).expect("wrk counts");
        [rate, spent * 1e6 / requests, memory[0], memory[1]]
    }
}
