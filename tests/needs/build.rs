//! Looks for what tests need beyond Rust, and tells `lib.rs` of each need what to do if this machine does not meet it.
//!
//! Only tests pay for the search: `cargo build` compiles no development dependency. Cargo runs this again after something was
//! installed.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Tests open this many connections at once, with both ends in processes that inherit the limit.
const DESCRIPTORS: u64 = 16_000;

fn main() {
    // Where apt-get installs. The other directories on PATH are not watched: they can be huge, and on network disks.
    for dir in
        ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().filter(|it| Path::new(it).exists())
    {
        println!("cargo::rerun-if-changed={dir}");
    }
    for variable in ["PATH", "USER", "HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let installed = sdks();
    println!("cargo::rerun-if-changed={}", installed.display());

    let needs = [
        (
            "chattr",
            can("sh", &["-c", CHATTR]),
            "run the tests as root, on a file system with chattr",
        ),
        ("chromium", has("chromium"), "apt-get install chromium"),
        ("cores", leaves_core(), "let crashes leave a core: `ulimit -Hc unlimited`, core(5)"),
        ("curl", has("curl"), "apt-get install curl"),
        ("descriptors", descriptors() >= DESCRIPTORS, "raise `ulimit -Hn` to 16000 or more"),
        ("dev_full", Path::new("/dev/full").exists(), "a system with /dev/full"),
        ("faketime", has("faketime"), "apt-get install faketime"),
        ("fish", has("fish"), "apt-get install fish"),
        ("go", has("go"), "apt-get install golang-go"),
        ("ipv6", TcpListener::bind("[::1]:0").is_ok(), "a system with the address ::1"),
        ("java", has("javac") && has("keytool"), "apt-get install default-jdk-headless"),
        ("mount", can("unshare", &MOUNT), "allow `unshare --user --map-root-user --mount`"),
        ("network", has_network(), "an address that is not a loopback one"),
        ("nginx", has("nginx"), "apt-get install nginx-light"),
        ("openssl", has("openssl"), "apt-get install openssl"),
        (
            "pid_namespace",
            can("unshare", &PID_NAMESPACE),
            "allow `unshare --user --map-root-user --pid --fork --mount-proc`",
        ),
        ("php", has("php"), "apt-get install php-cli"),
        (
            "php_symfony",
            Path::new("/usr/share/php/Symfony/Component/HttpClient").exists(),
            "apt-get install php-symfony-http-client",
        ),
        ("promtool", has("promtool"), "apt-get install prometheus"),
        ("python3", has("python3"), "apt-get install python3-venv"),
        ("redis", has("redis-server") && has("redis-cli"), "apt-get install redis-server"),
        ("root", is_root(), "run the tests as root"),
        ("ruby", has("ruby"), "apt-get install ruby"),
        ("script", has("script"), "apt-get install bsdutils"),
        ("sdks", fs::metadata(&installed).is_ok_and(|it| it.len() > 0), "run .ci/sdk"),
        (
            "strace",
            // wxtoken is not dumpable, and strace of another user cannot read the texts of its calls.
            is_root() && can("strace", &["-o", "/dev/null", "true"]),
            "apt-get install strace, allow it to trace, and run the tests as root",
        ),
        ("systemd", has("systemd-socket-activate"), "apt-get install systemd"),
        (
            "time_namespace",
            can("unshare", &["--time", "--boottime", "1000", "--fork", "true"]),
            "run the tests as root, with the unshare of util-linux",
        ),
        ("zsh", has("zsh"), "apt-get install zsh"),
    ];
    let needs =
        needs.map(|(name, is_met, how)| format!("{name}={}", if is_met { "" } else { how }));
    println!("cargo::rustc-env=NEEDS={}", needs.join(";"));
}

const CHATTR: &str = "d=$(mktemp -d) && chattr +a $d && chattr -a $d && rmdir $d";

const PID_NAMESPACE: [&str; 6] =
    ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "true"];

const MOUNT: [&str; 4] = ["--user", "--map-root-user", "--mount", "true"];

/// Whether there is a program of this name. Debian has some where only root looks.
fn has(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into()]).any(|dir| dir.join(name).is_file())
}

/// Whether this command succeeds.
fn can(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status")
        .is_ok_and(|it| it.lines().any(|line| line.starts_with("Uid:\t0\t0\t")))
}

/// How many descriptors a process may have if it asks for the most.
fn descriptors() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().nth(1)) {
        Some("unlimited") => u64::MAX,
        limit => limit.and_then(|limit| limit.parse().ok()).unwrap_or(0),
    }
}

/// Whether a crash leaves a core here.
fn leaves_core() -> bool {
    let dir = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it")).join("crash");
    let _ = fs::create_dir(&dir);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c unlimited && kill -ABRT $$"]).current_dir(&dir);
    let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = fs::remove_dir_all(&dir);
    status.is_ok_and(|status| status.core_dumped())
}

/// Whether packets to the internet would have an address of this machine's. Sends none.
fn has_network() -> bool {
    let address = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    address.is_ok_and(|it| !it.ip().is_loopback() && !it.ip().is_unspecified())
}

/// The file that `.ci/sdk` writes last. Empty if there was none: Cargo runs this each time while a watched file is missing.
fn sdks() -> PathBuf {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets it"));
    // target/debug/build/needs-HASH/out
    let target = out_dir.ancestors().nth(4).expect("Cargo's layout");
    let installed = target.join("sdk/installed");
    if !installed.exists() {
        let _ = fs::create_dir_all(target.join("sdk"));
        let _ = fs::write(&installed, "");
    }
    installed
}
