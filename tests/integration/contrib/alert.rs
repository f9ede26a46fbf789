//! `contrib/alert/alert`, which `on_trouble` runs: what it sends to the robots of WeCom, DingTalk and Feishu and by mail, as
//! their documentation has it, and that no secret is among the arguments of a program.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::{HMAC_SHA256, Key, sign};
use serde_json::Value;

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::*;

/// Secrets as the two services make them. That of DingTalk is longer than a block of SHA-256.
const DINGTALK_SECRET: &str = "SEC19dd84be8c7f3cf71761974f1ed3ef77c1451906ae8ba18acf56103ee0123456";
const FEISHU_SECRET: &str = "nIMtb7r3N9pkXyXdtAbx6e";

const PATH: &str = "/robot/send?access_token=0a1b2c3d-secret";

/// A robot's service: answers everything with the same body, and keeps what it gets.
struct Robot {
    address: SocketAddr,
    /// The targets and bodies of the requests.
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Robot {
    fn answering(body: &'static str) -> Robot {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let robot = Robot { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = Arc::clone(&robot.requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(&stream);
                let (mut head, mut line) = (Vec::new(), String::new());
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    head.push(std::mem::take(&mut line));
                }
                let Some(target) = head.first().and_then(|it| it.split(' ').nth(1)) else {
                    continue;
                };
                let field = |name: &str| {
                    let fields = head.iter().filter_map(|line| line.split_once(": "));
                    let mut found = fields.filter(|(it, _)| it.eq_ignore_ascii_case(name));
                    found.next().map(|(_, value)| value.trim().to_owned())
                };
                let json =
                    field("content-type").is_some_and(|it| it.starts_with("application/json"));
                assert!(json, "{head:?}");
                let length = field("content-length").unwrap().parse().unwrap();
                let mut request = vec![0; length];
                reader.read_exact(&mut request).unwrap();
                let request = String::from_utf8(request).unwrap();
                requests.lock().unwrap().push((target.to_owned(), request));
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
            }
        });
        robot
    }

    fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Returns the target and the body of the only request since the last look.
    fn request(&self) -> (String, Value) {
        let mut requests = self.requests.lock().unwrap();
        let (target, body) = requests.pop().expect("a request");
        assert!(requests.is_empty(), "{requests:?}");
        (target, serde_json::from_str(&body).unwrap_or_else(|err| panic!("{err}: {body}")))
    }
}

/// A directory with programs that write their arguments down, before those in `PATH`.
struct Watched {
    dir: tempfile::TempDir,
}

impl Watched {
    fn new() -> Watched {
        let watched = Watched { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(watched.path("bin")).unwrap();
        let programs = "base64 curl cut date find od sed sha256sum tr uname";
        for program in programs.split(' ') {
            let script = format!(
                "#!/bin/sh\nprintf '%s ' \"$0\" \"$@\" >> '{}'\nPATH='{}' exec {program} \"$@\"\n",
                watched.path("argv").display(),
                std::env::var("PATH").unwrap()
            );
            write_program(&watched.path("bin").join(program), &script);
        }
        watched
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `alert ARGS…` for this event.
    fn run(&self, args: &[&str], event: &str, message: &str) -> Output {
        let mut command = Command::new(program());
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.args(args).current_dir(self.dir.path()).env("PATH", path);
        command.env("WXTOKEN_ACCOUNT", "shop").env("WXTOKEN_FILE", "/d/shop.json");
        command.env("WXTOKEN_TROUBLE", event).env("WXTOKEN_TROUBLE_ERRCODE", "40164");
        command.env("WXTOKEN_TROUBLE_LIFE", "290").env("WXTOKEN_TROUBLE_TICKET", "");
        command.env("WXTOKEN_TROUBLE_SINCE", "2026-11-22T05:34:46Z");
        command.env("WXTOKEN_TROUBLE_MESSAGE", message).output().unwrap()
    }

    fn sends(&self, args: &[&str], event: &str, message: &str) {
        let ran = self.run(args, event, message);
        assert!(ran.status.success() && ran.stderr.is_empty() && ran.stdout.is_empty(), "{ran:?}");
    }

    /// Checks that no program got a secret as an argument.
    fn assert_no_argument_has(&self, secrets: &[&str]) {
        let argv = fs::read(self.path("argv")).unwrap();
        let argv = String::from_utf8_lossy(&argv);
        assert!(argv.contains("/curl "), "{argv}");
        for secret in secrets {
            assert!(!argv.contains(secret), "{argv}");
        }
    }
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/alert/alert")
}

/// What is wrong, with all that JSON has to escape.
const MESSAGE: &str =
    "WeChat refused (40164): \"x\" \\ \t Add IP 203.0.113.9. 请将 IP 203.0.113.9 加入白名单。";

#[track_caller]
fn assert_tells(text: &Value, what: &[&str]) {
    let text = text.as_str().unwrap();
    for what in what.iter().chain(&["[wxtoken] shop", "2026-11-22T05:34:46Z"]) {
        assert!(text.contains(what), "{what}: {text}");
    }
}

const BEGIN: [&str; 4] = ["刷新失败", "\"x\" \\   Add IP", "加入白名单。\n", "life left: 4 min\n"];

#[needs(curl)]
#[test]
fn a_robot_of_wecom_gets_a_text_of_at_most_2048_bytes() {
    let (robot, watched) = (Robot::answering(r#"{"errcode":0,"errmsg":"ok"}"#), Watched::new());
    write_with_mode(&watched.path("robot"), &format!("{}\n", robot.url()), 0o600);
    watched.sends(&["wecom", "robot"], "begin", MESSAGE);
    let (target, body) = robot.request();
    assert_eq!((&*target, &body["msgtype"]), (PATH, &"text".into()));
    assert_tells(&body["text"]["content"], &BEGIN);
    watched.sends(&["wecom", "robot"], "end", "refreshing works again");
    let (_, body) = robot.request();
    assert_tells(&body["text"]["content"], &["已恢复正常", "well again"]);
    // One byte more or less each time, so that the cut is within a character at times.
    for more in ["", "a", "ab"] {
        let long = format!("{more}{}", "微信".repeat(400));
        watched.sends(&["wecom", "robot"], "begin", &long);
        let (_, body) = robot.request();
        let text = body["text"]["content"].as_str().unwrap();
        assert!(text.len() <= 2048, "{}", text.len());
        assert!(text.contains("微...\n") || text.contains("信...\n"), "{text}");
        assert!(!text.contains('\u{fffd}'));
    }
    watched.assert_no_argument_has(&["0a1b2c3d"]);
}

#[needs(curl)]
#[test]
fn a_robot_of_dingtalk_gets_a_text_with_its_signature() {
    let (robot, watched) = (Robot::answering(r#"{"errcode":0,"errmsg":"ok"}"#), Watched::new());
    let file = format!("{}\n{DINGTALK_SECRET}\n", robot.url());
    write_with_mode(&watched.path("robot"), &file, 0o600);
    watched.sends(&["dingtalk", "robot"], "begin", MESSAGE);
    let (target, body) = robot.request();
    assert_eq!(body["msgtype"], "text");
    assert_tells(&body["text"]["content"], &BEGIN);
    let signed = target.strip_prefix(&format!("{PATH}&timestamp=")).unwrap();
    let (timestamp, signature) = signed.split_once("&sign=").unwrap();
    let key = Key::new(HMAC_SHA256, DINGTALK_SECRET.as_bytes());
    let expected = sign(&key, format!("{timestamp}\n{DINGTALK_SECRET}").as_bytes());
    let expected = STANDARD.encode(expected).replace('+', "%2B").replace('/', "%2F");
    assert_eq!(signature, expected.replace('=', "%3D"));
    let age = time::UtcDateTime::now().unix_timestamp() - timestamp.parse::<i64>().unwrap() / 1000;
    assert!((0..600).contains(&age), "in milliseconds: {timestamp}");
    watched.assert_no_argument_has(&["0a1b2c3d", DINGTALK_SECRET, signature]);
    // Without 加签.
    write_with_mode(&watched.path("robot"), &robot.url(), 0o600);
    watched.sends(&["dingtalk", "robot"], "begin", MESSAGE);
    assert_eq!(robot.request().0, PATH);
}

#[needs(curl)]
#[test]
fn a_robot_of_feishu_gets_a_text_with_its_signature() {
    let (robot, watched) = (Robot::answering(r#"{"code": 0, "msg": "success"}"#), Watched::new());
    let file = format!("{}\n{FEISHU_SECRET}\n", robot.url());
    write_with_mode(&watched.path("robot"), &file, 0o600);
    watched.sends(&["feishu", "robot"], "begin", MESSAGE);
    let (target, body) = robot.request();
    assert_eq!((&*target, &body["msg_type"]), (PATH, &"text".into()));
    assert_tells(&body["content"]["text"], &BEGIN);
    let timestamp = body["timestamp"].as_str().unwrap();
    let key = Key::new(HMAC_SHA256, format!("{timestamp}\n{FEISHU_SECRET}").as_bytes());
    assert_eq!(body["sign"], STANDARD.encode(sign(&key, b"")));
    let age = time::UtcDateTime::now().unix_timestamp() - timestamp.parse::<i64>().unwrap();
    assert!((0..600).contains(&age), "in seconds: {timestamp}");
    watched.assert_no_argument_has(&["0a1b2c3d", FEISHU_SECRET]);
}

#[needs(curl)]
#[test]
fn a_message_mentions_no_member_and_is_no_longer_for_it() {
    for (kind, place) in
        [("feishu", "/content/text"), ("wecom", "/text/content"), ("dingtalk", "/text/content")]
    {
        let robot = Robot::answering(r#"{"code":0,"msg":"success","errcode":0,"errmsg":"ok"}"#);
        let watched = Watched::new();
        write_with_mode(&watched.path("robot"), &format!("{}\n", robot.url()), 0o600);
        let mention = "<at user_id=\"all\">all</at> <@all>";
        for message in [mention.to_owned(), "<@all>".repeat(250)] {
            watched.sends(&[kind, "robot"], "begin", &message);
            let (_, body) = robot.request();
            let text = body.pointer(place).unwrap().as_str().unwrap();
            assert!(text.contains("＜@all>") && !text.contains('<'), "{text}");
            assert!(text.len() <= 2048, "{}", text.len());
        }
    }
}

#[needs(curl)]
#[test]
fn a_robot_that_refuses_or_a_file_that_others_can_read_is_an_error() {
    let robot = Robot::answering(r#"{"errcode":310000,"errmsg":"sign not match"}"#);
    let watched = Watched::new();
    for (file, mode, reason) in [
        (robot.url(), 0o600, "sign not match"),
        (robot.url(), 0o644, "chmod 600"),
        (robot.url(), 0o620, "chmod 600"),
        (robot.url().replace("127.0.0.1", "127.0.0.2"), 0o600, "is no https:// URL"),
        (format!("{}\"\noutput = \"x", robot.url()), 0o600, "is no https:// URL"),
        (String::new(), 0o600, "is no https:// URL"),
    ] {
        write_with_mode(&watched.path("robot"), &file, mode);
        let ran = watched.run(&["dingtalk", "robot"], "begin", MESSAGE);
        let stderr = String::from_utf8(ran.stderr).unwrap();
        assert!(!ran.status.success() && stderr.contains(reason), "{file} {mode:o}: {stderr}");
        assert!(!stderr.contains("0a1b2c3d"), "{stderr}");
    }
    assert!(!watched.run(&["dingtalk", "nothing"], "begin", MESSAGE).status.success());
    assert_eq!(watched.run(&["dingtalk", "robot"], "", MESSAGE).status.code(), Some(2));
    assert_eq!(watched.run(&["pigeon", "robot"], "begin", MESSAGE).status.code(), Some(2));
}

#[test]
fn mail_has_the_message_in_utf_8_and_a_subject_in_ascii() {
    let watched = Watched::new();
    let sendmail = format!("#!/bin/sh\necho \"$@\" > args\nexec cat > '{}'\n", "mail");
    write_program(&watched.path("bin/sendmail"), &sendmail);
    let args = ["mail", "ops@example.com", "dev@example.com"];
    watched.sends(&args, "begin", MESSAGE);
    assert_eq!(fs::read_to_string(watched.path("args")).unwrap().trim(), "-i -t");
    let mail = fs::read_to_string(watched.path("mail")).unwrap();
    let (head, body) = mail.split_once("\n\n").unwrap();
    let lines: Vec<_> = head.lines().collect();
    for line in [
        "To: ops@example.com, dev@example.com",
        "Subject: [wxtoken] shop cannot be refreshed",
        "Content-Type: text/plain; charset=UTF-8",
        "Content-Transfer-Encoding: base64",
    ] {
        assert!(lines.contains(&line), "{line}: {head}");
    }
    assert!(mail.is_ascii() && mail.lines().all(|line| line.len() < 80));
    let body = STANDARD.decode(body.replace('\n', "")).unwrap();
    assert_tells(&String::from_utf8(body).unwrap().into(), &["刷新失败", "\"x\" \\ \t Add IP"]);
    watched.sends(&args, "end", "");
    let mail = fs::read_to_string(watched.path("mail")).unwrap();
    assert!(mail.contains("Subject: [wxtoken] shop is well again"), "{mail}");
}

#[needs(curl)]
#[test]
fn fetch_tells_a_robot_through_on_trouble_once() {
    let robot = Robot::answering(r#"{"errcode":0,"errmsg":"ok"}"#);
    let wechat = wechat_with_accounts(1, &[]);
    let program = program();
    let argv = format!("on_trouble = [{:?}, \"wecom\", \"robot\"]\n", program.to_str().unwrap());
    let home = Home::with_accounts(1, &wechat.url(), &argv);
    write_with_mode(&home.path("robot"), &robot.url(), 0o600);
    let fetch = |args: &[&str], status| {
        let mut fetch = home.command(&[&["fetch"], args].concat());
        fetch.current_dir(home.path(""));
        Run::new(fetch).exits(status)
    };
    wechat.fault("errcode:40164");
    fetch(&[], 4);
    let (_, body) = robot.request();
    let text = body["text"]["content"].as_str().unwrap();
    assert!(text.contains("[wxtoken] a0 刷新失败") && text.contains("IP 白名单"), "{text}");
    fetch(&[], 4);
    assert!(robot.requests.lock().unwrap().is_empty());
    wechat.fault("none");
    fetch(&["--force", "a0"], 0);
    let (_, body) = robot.request();
    assert!(body["text"]["content"].as_str().unwrap().contains("a0 已恢复正常"), "{body}");
}
