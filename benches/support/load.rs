//! Load by `wrk -t1`, which uses one core and leaves the server another. Where `wrk` is the bottleneck, CPU per request
//! tells more than requests per second.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::servers::Endpoint;
use super::{cpu, proportional, resident};

/// Names and units of the figures that [`Load::drive`] returns; the constants below are their indices.
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

/// Parameters of a load.
pub struct Load {
    wrk: PathBuf,
    connections: usize,
    secs: u64,
    options: Vec<String>,
    openssl_conf: Option<PathBuf>,
}

impl Load {
    /// A load over so many connections, for so many seconds.
    pub fn new(wrk: &Path, connections: usize, secs: u64) -> Load {
        let wrk = wrk.to_owned();
        Load { wrk, connections, secs, options: Vec::new(), openssl_conf: None }
    }

    /// Adds options for `wrk`.
    pub fn with_options(mut self, options: &[&str]) -> Load {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// Runs `wrk` with this configuration of OpenSSL.
    pub fn with_openssl_conf(mut self, openssl_conf: &Path) -> Load {
        self.openssl_conf = Some(openssl_conf.to_owned());
        self
    }

    /// Puts the load on a server, and returns the [`FIGURES`].
    pub fn drive(&self, endpoint: &Endpoint, path: &str) -> [f64; FIGURES.len()] {
        self.drive_and_read(endpoint, path).0
    }

    /// Does the same, and also returns the time in milliseconds in which 99 of 100 requests are answered.
    pub fn drive_for_p99(&self, endpoint: &Endpoint, path: &str) -> ([f64; FIGURES.len()], f64) {
        let (figures, output) = self.drive_and_read(endpoint, path);
        (figures, p99_ms(&output))
    }

    fn drive_and_read(&self, endpoint: &Endpoint, path: &str) -> ([f64; FIGURES.len()], String) {
        let Load { wrk, connections, secs, options, openssl_conf } = self;
        let mut command = Command::new(wrk);
        command.args(["-t1", &format!("-c{connections}"), &format!("-d{secs}s")]).args(options);
        command.arg(endpoint.url(path)).stdout(Stdio::piped());
        command.envs(openssl_conf.iter().map(|path| ("OPENSSL_CONF", path)));
        let before = cpu(endpoint.worker);
        let mut driving = command.spawn().expect("wrk starts");
        sleep(Duration::from_millis(secs * 500)); // Memory is measured in the middle.
        let memory = [resident, proportional].map(|measure| endpoint.memory(measure));
        let mut output = String::new();
        driving.stdout.take().expect("a pipe").read_to_string(&mut output).expect("text");
        assert!(driving.wait().expect("wrk ends").success(), "{output}");
        let spent = cpu(endpoint.worker) - before;
        let failures = ["Non-2xx", "Socket errors"];
        assert!(!failures.iter().any(|it| output.contains(it)), "{}: {output}", endpoint.name);
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok());
        let requests = output.lines().find_map(|line| Some(line.split_once(" requests in ")?.0));
        let rate = output.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        let (requests, rate) = number(requests).zip(number(rate)).expect("wrk counts");
        ([rate, spent * 1e6 / requests, memory[0], memory[1]], output)
    }
}

/// Returns the time in which 99 of 100 requests are answered, in milliseconds, from what `wrk --latency` prints.
pub fn p99_ms(output: &str) -> f64 {
    let p99 = output.lines().find_map(|line| line.trim().strip_prefix("99%"));
    let p99 = p99.expect("wrk runs with --latency").trim();
    let (number, unit) = p99.split_at(p99.find(char::is_alphabetic).expect("a unit"));
    let unit = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        unit => panic!("wrk's unit {unit}"),
    };
    number.parse::<f64>().expect("a number") * unit
}
