//! Real SDKs that run unchanged, against `wxtoken serve --refresh` and WeChat's stand-in: what each does when WeChat kills its
//! token, while there is none, and with a wrong key. `.ci/sdk` installs them; without them these tests are ignored.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::sdk::{SdkSetup, Worker, new_key};
use crate::support::*;

/// An SDK, and what it does.
pub(super) struct Sdk {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// How `tests/sdks/driver` knows it.
    driven_as: &'static str,
    /// The interpreter, below `target/sdk`.
    python: Option<&'static str>,
    is_for_wecom: bool,
    /// Whether the next API call is well after the token was killed.
    heals: bool,
    /// The same with `--sdk-life 290s`, once its cache has ended.
    heals_in_time: bool,
}

/// That of the recipes, which has wechatpy 1.8, and that of the SDKs that run unchanged.
const RECIPES: Option<&str> = Some("venv/bin/python");
const UNCHANGED: Option<&str> = Some("unchanged/venv/bin/python");
const NODE: Option<&str> = None;

pub(super) const SDKS: [Sdk; 10] = [
    sdk("wechatpy", "1.8.18", RECIPES, "wechatpy", true, true),
    sdk("wechatpy, WeCom", "1.8.18", RECIPES, "wechatpy work", true, true),
    sdk("wechatpy", "2.0.0a26", UNCHANGED, "wechatpy", true, true),
    sdk("wechatpy, WeCom", "2.0.0a26", UNCHANGED, "wechatpy work", true, true),
    sdk("weixin-python", "0.5.7", UNCHANGED, "weixin-python", false, true),
    sdk("pywe-token", "1.3.1", UNCHANGED, "pywe-token", false, true),
    sdk("WeRoBot", "1.13.1", UNCHANGED, "werobot", false, true),
    sdk("co-wechat-api", "3.11.0", NODE, "co-wechat-api", true, true),
    sdk("wechat-api", "1.35.1", NODE, "wechat-api", false, true),
    // It keeps its token until the process ends.
    sdk("wechat-enterprise-api", "0.3.0", NODE, "wechat-enterprise-api", false, false),
];

const fn sdk(
    name: &'static str,
    version: &'static str,
    python: Option<&'static str>,
    driven_as: &'static str,
    heals: bool,
    heals_in_time: bool,
) -> Sdk {
    let is_for_wecom = matches!(driven_as.as_bytes(), b"wechatpy work" | b"wechat-enterprise-api");
    Sdk { name, version, driven_as, python, is_for_wecom, heals, heals_in_time }
}

impl Sdk {
    /// The API of an account for the SDK.
    pub(super) fn api(&self) -> &'static str {
        if self.is_for_wecom { "work" } else { "stable" }
    }

    fn setup(&self, wechat: WeChat, serve: fn(&Sandbox, &[&str]) -> Server) -> SdkSetup {
        SdkSetup::around(wechat, self.api(), serve)
    }

    /// Returns a command that runs the SDK, which is installed below `sdks`, with the environment of this process.
    pub(super) fn driver(&self, sdks: &Path) -> Command {
        let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdks");
        let (mut command, driver) = match self.python {
            Some(python) => (Command::new(sdks.join(python)), "driver.py"),
            None => (Command::new("node"), "driver.js"),
        };
        command.arg(drivers.join(driver)).arg(self.driven_as);
        command
    }

    fn command(&self, setup: &SdkSetup) -> Command {
        let mut command = self.driver(&setup.sdks);
        setup.set_environment(&mut command);
        command
    }

    fn worker(&self, setup: &SdkSetup) -> Worker {
        Worker::start(self.command(setup))
    }

    fn token_request(&self) -> &'static str {
        if self.is_for_wecom { "GET /cgi-bin/gettoken" } else { "GET /cgi-bin/token" }
    }

    /// Its row in the guide.
    fn row(&self, words: &Words) -> String {
        let Sdk { name, version, python, .. } = self;
        let way = if python.is_some() { words.hosts_file } else { words.host_setting };
        let healed = |heals| if heals { words.next_call } else { words.no };
        let (heals, in_time) = (healed(self.heals), healed(self.heals_in_time));
        format!("| {name} | {version} | {way} | {heals} | {in_time} | −1 | 40125 |")
    }
}

/// What the guide's table says.
struct Words {
    guide: &'static str,
    hosts_file: &'static str,
    host_setting: &'static str,
    next_call: &'static str,
    no: &'static str,
}

const GUIDES: [Words; 2] = [
    Words {
        guide: "docs/en/sdks.md",
        hosts_file: "hosts file",
        host_setting: "host setting",
        next_call: "the next call is well",
        no: "no",
    },
    Words {
        guide: "docs/zh/sdks.md",
        hosts_file: "hosts 文件",
        host_setting: "域名设置",
        next_call: "下一次调用正常",
        no: "否",
    },
];

/// Lets a probe's verdict pass, which holds for a second.
fn let_a_verdict_pass() {
    thread::sleep(Duration::from_millis(1100));
}

#[needs(sdks)]
#[test]
fn each_sdk_makes_its_first_call_with_one_token_request_and_heals_as_the_guide_says() {
    for sdk in &SDKS {
        let what = format!("{} {}", sdk.name, sdk.version);
        let setup = sdk.setup(WeChat::start(), Sandbox::serve_refreshing);
        let mut worker = sdk.worker(&setup);
        worker.call_succeeds();
        assert_eq!(setup.wxtoken_tap.requests(), [sdk.token_request()], "{what}");
        let mints = setup.wechat.mints();
        setup.wechat.kill_tokens();
        assert_eq!(worker.call() == "ok", sdk.heals, "{what}");
        assert_eq!(worker.call() == "ok", sdk.heals, "{what}");
        // One, unless the machine is so busy that the probe takes longer than a request waits.
        let requests = setup.wxtoken_tap.requests().len();
        assert!(if sdk.heals { (1..=5).contains(&requests) } else { requests == 0 }, "{what}");
        assert_eq!(setup.wechat.mints() - mints, u64::from(sdk.heals), "{what}");
    }
}

/// WeChat kills the token of an SDK that does not ask for another one. Its clock is set forward, not that of the server: it
/// asks again for a token that it was handed before.
#[needs(sdks)]
#[test]
fn with_sdk_life_an_sdk_heals_once_its_cache_has_ended_as_the_guide_says() {
    for sdk in &SDKS {
        let what = format!("{} {}", sdk.name, sdk.version);
        let setup = sdk.setup(WeChat::start(), |sandbox, args| {
            sandbox.serve_refreshing(&[args, &["--sdk-life", "290s"]].concat())
        });
        let mut worker = sdk.worker(&setup);
        worker.call_succeeds();
        worker.call_succeeds();
        let mints = setup.wechat.mints();
        setup.wechat.kill_tokens();
        let_a_verdict_pass();
        // The first one, unless the machine is so busy that the probe takes longer than a request waits.
        let is_well = (0..5).any(|_| {
            worker.later(290);
            worker.call() == "ok"
        });
        assert_eq!(is_well, sdk.heals_in_time, "{what}");
        assert_eq!(setup.wechat.mints() - mints, u64::from(sdk.heals_in_time), "{what}");
    }
}

#[needs(sdks)]
#[test]
fn without_a_token_or_with_a_wrong_key_each_sdk_asks_once_and_says_why() {
    for sdk in &SDKS {
        let what = format!("{} {}", sdk.name, sdk.version);
        let wechat = WeChat::with(&["--fault", "errcode:40164"]);
        let setup = sdk.setup(wechat, Sandbox::serve_refreshing);
        assert_eq!(sdk.worker(&setup).call(), "error -1", "{what}");
        assert_eq!(setup.wxtoken_tap.requests(), [sdk.token_request()], "{what}");
        let mut command = sdk.command(&setup);
        command.env("WXTOKEN_KEY", new_key().0);
        assert_eq!(Worker::start(command).call(), "error 40125", "{what}");
        assert_eq!(setup.wxtoken_tap.requests(), [sdk.token_request()], "{what}");
        assert_eq!(setup.wechat_tap.requests(), [""; 0], "{what}: no call to WeChat");
    }
}

#[test]
fn the_guides_have_what_was_run() {
    for words in &GUIDES {
        let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join(words.guide);
        let guide = fs::read_to_string(guide).unwrap();
        for row in SDKS.iter().map(|sdk| sdk.row(words)) {
            assert!(guide.lines().any(|line| line == row), "{}: {row}", words.guide);
        }
    }
    // The versions are those that are installed.
    let pins = ["contrib/sdk/wechatpy/requirements.txt", "tests/sdks/requirements.txt"]
        .into_iter()
        .chain(["contrib/sdk/co-wechat-api/package.json", "tests/sdks/package.json"])
        .map(|file| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap())
        .collect::<String>();
    for Sdk { name, version, .. } in &SDKS {
        let package = name.split(',').next().unwrap();
        let pin = [format!("{package}=={version}\n"), format!("\"{package}\": \"{version}\"")];
        assert!(pin.iter().any(|pin| pins.contains(pin.as_str())), "{package} {version}");
    }
}
