//! The recipes in `contrib/sdk`, with the real SDKs in them, against `wxtoken serve --refresh` and WeChat's stand-in.
//! `.ci/sdk` installs the SDKs; without them these tests are ignored.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::home::Home;
use crate::support::redis::Redis;
use crate::support::*;

/// The recipes with an SDK: those that call `serve`, and those that read the document.
const SDKS_OVER_HTTP: [&str; 2] = ["wechatpy/over_http.py", "co-wechat-api/over-http.js"];
const SDKS_FROM_FILE: [&str; 2] = ["wechatpy/from_file.py", "co-wechat-api/from-file.js"];

/// The recipe for WeCom.
const WECOM_OVER_HTTP: &str = "wechatpy/wecom.py";

/// The recipe whose SDK reads the token from Redis.
const FROM_REDIS: &str = "wechatpy/from_redis.py";

/// The recipes without an SDK.
const SHELL_OVER_HTTP: &str = "shell/over-http.sh";
const SHELL_FROM_FILE: &str = "shell/from-file.sh";

/// Everything that a program with an SDK connects to.
pub(super) struct SdkSetup {
    pub(super) sdks: PathBuf,
    pub(super) wechat: WeChat,
    pub(super) sandbox: Sandbox,
    key: String,
    /// Between the SDK and wxtoken.
    pub(super) wxtoken_tap: Tap,
    /// Between the SDK and WeChat.
    pub(super) wechat_tap: Tap,
    _server: Server,
}

impl SdkSetup {
    /// Starts a mock without faults and `serve --refresh`.
    fn set() -> SdkSetup {
        SdkSetup::around(WeChat::start(), "stable", Sandbox::serve_refreshing)
    }

    pub(super) fn around(
        wechat: WeChat,
        api: &'static str,
        serve: fn(&Sandbox, &[&str]) -> Server,
    ) -> SdkSetup {
        let sdks = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk");
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]); // Fails if WeChat has a fault.
        let (key, line) = new_key();
        let keys = sandbox.path("keys");
        write_with_mode(&keys, &line, 0o600);
        let server = serve(&sandbox, &["--keys", keys.to_str().unwrap()]);
        let wxtoken_tap = Tap::before(server.address());
        let wechat_tap = Tap::before(wechat.address());
        SdkSetup { sdks, wechat, sandbox, key, wxtoken_tap, wechat_tap, _server: server }
    }

    /// Returns a command that runs a recipe, with the setup's addresses and nothing else in its environment.
    fn program(&self, recipe: &str) -> Command {
        self.interpreter(recipe, &[])
    }

    /// Starts the recipe in a process that makes an API call for each line on stdin.
    fn worker(&self, recipe: &str) -> Worker {
        Worker::start(self.worker_program(recipe))
    }

    fn worker_program(&self, recipe: &str) -> Command {
        let program = match recipe.rsplit_once('.') {
            Some((_, "py")) => ["-c", PYTHON_WORKER],
            _ => ["-e", NODE_WORKER],
        };
        self.interpreter(recipe, &program)
    }

    fn interpreter(&self, recipe: &str, args: &[&str]) -> Command {
        let mut command = match recipe.rsplit_once('.') {
            Some((_, "py")) => Command::new(self.sdks.join("venv/bin/python")),
            Some((_, "js")) => Command::new("node"),
            _ => Command::new("sh"),
        };
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sdk").join(recipe);
        command.args(args).arg(recipe);
        self.set_environment(&mut command);
        command
    }

    /// Sets the setup's addresses, and nothing else.
    pub(super) fn set_environment(&self, command: &mut Command) {
        let wxtoken = Path::new(env!("CARGO_BIN_EXE_wxtoken")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        command.env_clear();
        command.env("PATH", format!("{}:{path}", wxtoken.display()));
        let modules = [&self.sdks, &self.sdks.join("unchanged")].map(|it| it.join("node_modules"));
        command.env("NODE_PATH", std::env::join_paths(modules).unwrap());
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("TMPDIR", self.sandbox.path(""));
        command.env("WXTOKEN_URL", self.wxtoken_tap.url()).env("WXTOKEN_KEY", &self.key);
        command.env("WXTOKEN_APPID", APPID).env("WXTOKEN_FILE", self.sandbox.document_path());
        command.env("WXTOKEN_SECRET_FILE", self.sandbox.path("secret"));
        command.env("WXTOKEN_BASE_URL", self.wechat.url());
        command.env("WECHAT_API", self.wechat_tap.url());
    }
}

/// Returns a new client key, and its line for the server's file.
pub(super) fn new_key() -> (String, String) {
    let mut command = wxtoken();
    command.args(["key", "worker"]);
    let ran = Run::new(command).exits(0);
    let field = |label| ran.stdout.lines().find_map(|line| line.strip_prefix(label)).expect(label);
    (field("key:").trim().to_owned(), field("line:").trim().to_owned())
}

/// Imports the recipe, and for each line on stdin makes its API call.
const PYTHON_WORKER: &str = r#"
import importlib.util, sys
# wechatpy fails after 489 requests in a row, and a machine that is busy makes them slower than a loop is.
sys.setrecursionlimit(100_000)
spec = importlib.util.spec_from_file_location("recipe", sys.argv[1])
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)
for _ in sys.stdin:
    try:
        print("ok" if recipe.client.misc.get_wechat_ips() else "nothing", flush=True)
    except Exception as err:
        print("error", getattr(err, "errcode", None) or type(err).__name__, flush=True)
"#;

/// The same in JavaScript; does not wait for one call before the next.
const NODE_WORKER: &str = r#"
const api = require(process.argv[1]);
require('node:readline').createInterface({ input: process.stdin }).on('line', async () => {
  try {
    console.log((await api.getIp()).ip_list.length > 0 ? 'ok' : 'nothing');
  } catch (err) {
    console.log('error', err.code ?? err.name);
  }
});
"#;

/// A process with an SDK.
pub(super) struct Worker {
    child: Child,
    stdin: ChildStdin,
    results: Receiver<String>,
}

impl Worker {
    pub(super) fn start(mut command: Command) -> Worker {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, results) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Worker { child, stdin, results }
    }

    /// Starts an API call.
    fn start_call(&mut self) {
        self.stdin.write_all(b"call\n").expect("it reads");
    }

    /// Waits for the result of a call: `ok`, or `error` and its code or name.
    #[track_caller]
    fn result(&mut self) -> String {
        self.results.recv_timeout(PATIENCE).expect("a result")
    }

    /// Makes an API call and returns its result.
    #[track_caller]
    pub(super) fn call(&mut self) -> String {
        self.start_call();
        self.result()
    }

    /// Writes another line than that of a call, and returns the result.
    #[track_caller]
    pub(super) fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").expect("it reads");
        self.result()
    }

    /// Sets the clock of an SDK that runs unchanged forward.
    pub(super) fn later(&mut self, seconds: u64) {
        writeln!(self.stdin, "later {seconds}").expect("it reads");
    }

    #[track_caller]
    pub(super) fn call_succeeds(&mut self) {
        assert_eq!(self.call(), "ok");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy between clients and a server that records requests.
pub(super) struct Tap {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn before(server: SocketAddr) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let tap = Tap { address, recorded: Arc::clone(&recorded) };
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let (server, recorded) = (connect(server), Arc::clone(&recorded));
                let (answers, answered) =
                    (server.try_clone().unwrap(), caller.try_clone().unwrap());
                thread::spawn(move || {
                    pass_on(caller, server, |bytes| {
                        let mut recorded = recorded.lock().unwrap();
                        recorded.extend(bytes);
                        // A body does not end in a newline.
                        recorded.push(b'\n');
                    })
                });
                thread::spawn(move || pass_on(answers, answered, |_| {}));
            }
        });
        tap
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns method and path of each request since the last call of this.
    pub(super) fn requests(&self) -> Vec<String> {
        let recorded = std::mem::take(&mut *self.recorded.lock().unwrap());
        let text = String::from_utf8(recorded).expect("requests are text");
        let requests = text.lines().filter_map(|line| line.strip_suffix(" HTTP/1.1"));
        requests.map(|request| request.split('?').next().unwrap().to_owned()).collect()
    }
}

/// Copies bytes until `from` ends; `observe` gets them first.
fn pass_on(mut from: TcpStream, mut to: TcpStream, observe: impl Fn(&[u8])) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        observe(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write); // It can be closed already.
}

#[needs(sdks)]
#[test]
fn every_recipe_completes_its_api_call_with_one_token_for_all() {
    let setup = SdkSetup::set();
    let shell = [SHELL_OVER_HTTP, SHELL_FROM_FILE];
    for recipe in [SDKS_OVER_HTTP, SDKS_FROM_FILE, shell].as_flattened() {
        let ran = Run::new(setup.program(recipe)).exits(0);
        let mut parts = ran.stdout.split(|c: char| !c.is_ascii_digit() && c != '.');
        let addresses = parts.any(|part| part.parse::<Ipv4Addr>().is_ok());
        assert!(addresses, "{recipe}: {}", ran.stdout);
        assert_eq!(ran.stderr, "", "{recipe}");
    }
    assert_eq!(setup.wechat.asked(), 1);
}

#[needs(sdks)]
#[test]
fn an_sdk_requests_a_token_once_and_keeps_it() {
    let setup = SdkSetup::set();
    for recipe in SDKS_OVER_HTTP {
        let mut worker = setup.worker(recipe);
        for _ in 0..3 {
            worker.call_succeeds();
        }
        assert_eq!(setup.wxtoken_tap.requests(), ["GET /cgi-bin/token"], "{recipe}");
    }
}

/// Requesting a token again is how SDKs report a dead one, and workers that start together look the same.
#[needs(sdks)]
#[test]
fn workers_that_start_together_do_not_cause_a_replacement() {
    let setup = SdkSetup::set();
    let recipes = SDKS_OVER_HTTP.iter().cycle().take(8);
    let mut workers: Vec<Worker> = recipes.map(|recipe| setup.worker(recipe)).collect();
    workers.iter_mut().for_each(Worker::start_call);
    for worker in &mut workers {
        assert_eq!(worker.result(), "ok");
    }
    assert_eq!(setup.wxtoken_tap.requests().len(), workers.len());
    assert_eq!(setup.wechat.asked(), 1, "the token is not replaced");
}

#[needs(sdks)]
#[test]
fn concurrent_api_calls_of_one_process_share_a_token_request() {
    let setup = SdkSetup::set();
    let mut worker = setup.worker(SDKS_OVER_HTTP[1]);
    let mut call_ten_times = || {
        (0..10).for_each(|_| worker.start_call());
        (0..10).for_each(|_| assert_eq!(worker.result(), "ok"));
        setup.wxtoken_tap.requests().len()
    };
    assert_eq!(call_ten_times(), 1);
    setup.wechat.kill_tokens();
    // A call that is refused after the others have a new token makes a request of its own.
    assert!(call_ten_times() <= 10);
}

/// WeChat rejects the SDK's token, and all that the SDK can do is to request a token again.
#[needs(sdks)]
#[test]
fn an_sdk_recovers_from_a_revoked_token_within_one_api_call() {
    for recipe in SDKS_OVER_HTTP {
        let setup = SdkSetup::set();
        let mut worker = setup.worker(recipe);
        worker.call_succeeds();
        let (mints, _) = (setup.wechat.mints(), setup.wxtoken_tap.requests());
        setup.wechat.kill_tokens();

        worker.call_succeeds();
        let requests = setup.wxtoken_tap.requests();
        assert!((1..=5).contains(&requests.len()), "{recipe}: {requests:?}");
        assert_eq!(setup.wechat.mints(), mints + 1, "{recipe}");

        worker.call_succeeds();
        assert_eq!(setup.wxtoken_tap.requests(), [""; 0], "{recipe}: the new token is kept");
    }
}

/// A new process never held another token: only its first two requests show that the token is dead.
#[needs(sdks)]
#[test]
fn an_sdk_that_starts_with_a_revoked_token_recovers_within_one_api_call() {
    for recipe in SDKS_OVER_HTTP {
        let setup = SdkSetup::set();
        setup.wechat.kill_tokens();
        let mut worker = setup.worker(recipe);
        worker.call_succeeds();
        let requests = setup.wxtoken_tap.requests();
        assert!((2..=5).contains(&requests.len()), "{recipe}: {requests:?}");
        worker.call_succeeds();
        assert_eq!(setup.wxtoken_tap.requests(), [""; 0], "{recipe}");
    }
}

#[needs(sdks)]
#[test]
fn an_sdk_for_wecom_keeps_its_token_and_recovers_from_a_revoked_one_within_one_api_call() {
    let setup = SdkSetup::around(WeChat::start(), "work", Sandbox::serve_refreshing);
    let mut worker = setup.worker(WECOM_OVER_HTTP);
    worker.call_succeeds();
    worker.call_succeeds();
    assert_eq!(setup.wxtoken_tap.requests(), ["GET /cgi-bin/gettoken"]);
    setup.wechat.kill_tokens();
    worker.call_succeeds();
    let requests = setup.wxtoken_tap.requests();
    assert!((1..=5).contains(&requests.len()), "{requests:?}");
    worker.call_succeeds();
    assert_eq!(setup.wxtoken_tap.requests(), [""; 0], "the new token is kept");

    Run::new(setup.program(WECOM_OVER_HTTP)).exits(0);
}

/// Without --refresh a dead token is not replaced. One SDK gives up by itself, the other would retry until its process fails.
#[needs(sdks)]
#[test]
fn an_endless_retry_loop_is_ended() {
    for (recipe, expected) in SDKS_OVER_HTTP.into_iter().zip(["error 45011", "error 40001"]) {
        let setup = SdkSetup::around(WeChat::start(), "stable", Sandbox::serve);
        setup.wechat.kill_tokens();
        assert_eq!(setup.worker(recipe).call(), expected, "{recipe}");
    }
}

/// The token is dead, and WeChat cannot be asked about it: without an end, the SDK makes a hundred calls for each call of the
/// program.
#[needs(sdks)]
#[test]
fn a_retry_loop_is_ended_after_a_few_calls_where_wechat_cannot_be_asked() {
    let setup = SdkSetup::set();
    setup.wechat.fault("probe/errcode:45009");
    // A WeChat that knows none of these tokens.
    let wechat = WeChat::start();
    let wechat_tap = Tap::before(wechat.address());
    let mut program = setup.worker_program(SDKS_OVER_HTTP[0]);
    program.env("WECHAT_API", wechat_tap.url());
    let mut worker = Worker::start(program);
    for _ in 0..2 {
        assert_eq!(worker.call(), "error 45011");
        let [tokens, calls] = [&setup.wxtoken_tap, &wechat_tap].map(|tap| tap.requests().len());
        assert!((3..=20).contains(&tokens) && (3..=20).contains(&calls), "{tokens} {calls}");
    }
}

/// co-wechat-api gives up after three seconds, and shows the URL with the key in it.
#[needs(sdks)]
#[test]
fn an_sdk_gets_an_answer_before_it_gives_up_while_wechat_hangs() {
    // A busy machine can take longer.
    let is_answered = (0..5).any(|_| {
        let setup = SdkSetup::set();
        setup.wechat.fault("token/hang");
        fs::remove_file(setup.sandbox.document_path()).unwrap();
        setup.worker(SDKS_OVER_HTTP[1]).call() == "error -1"
    });
    assert!(is_answered);
}

#[needs(sdks)]
#[test]
fn an_sdk_with_a_wrong_key_or_appid_is_refused_once_and_does_not_retry() {
    let setup = SdkSetup::set();
    let unknown_key = new_key().0;
    for recipe in SDKS_OVER_HTTP {
        for (name, wrong, refused) in [
            ("WXTOKEN_KEY", unknown_key.as_str(), "error 40125"),
            ("WXTOKEN_APPID", "wxffffffffffffffff", "error 40013"),
        ] {
            let mut program = setup.worker_program(recipe);
            program.env(name, wrong);
            assert_eq!(Worker::start(program).call(), refused, "{recipe}");
            assert_eq!(setup.wxtoken_tap.requests(), ["GET /cgi-bin/token"], "{recipe}");
        }
    }
    assert_eq!(setup.wechat_tap.requests(), [""; 0], "no call to WeChat");
}

#[needs(sdks)]
#[test]
fn an_sdk_gets_an_error_and_does_not_loop_while_wechat_is_down() {
    let setup = SdkSetup::set();
    for recipe in SDKS_OVER_HTTP {
        let mut worker = setup.worker(recipe);
        worker.call_succeeds();
        setup.wxtoken_tap.requests();
        setup.wechat_tap.requests();
        for fault in ["http:502", "reset", "errcode:-1"] {
            setup.wechat.fault(fault);
            let result = worker.call();
            assert!(result.starts_with("error"), "{recipe}, {fault}: {result}");
            assert_eq!(setup.wxtoken_tap.requests(), [""; 0], "{recipe}, {fault}");
            assert_eq!(setup.wechat_tap.requests().len(), 1, "{recipe}, {fault}");
        }
        setup.wechat.fault("none");
        worker.call_succeeds();
    }
}

#[needs(sdks)]
#[test]
fn without_a_token_an_sdk_gets_one_error_and_recovers_once_there_is_a_token() {
    for recipe in SDKS_OVER_HTTP {
        let wechat = WeChat::with(&["--fault", "errcode:40164"]);
        let setup = SdkSetup::around(wechat, "stable", Sandbox::serve_refreshing);
        let mut worker = setup.worker(recipe);
        assert_eq!(worker.call(), "error -1", "{recipe}");
        assert_eq!(setup.wxtoken_tap.requests(), ["GET /cgi-bin/token"], "{recipe}");
        setup.wechat.fault("none");
        // The refusal is remembered, and not asked about again for a while.
        setup.sandbox.run(&["fetch", "--force"]).exits(0);
        worker.call_succeeds();
    }
}

#[needs(sdks)]
#[test]
fn a_reader_of_the_document_uses_a_new_token_at_its_next_call() {
    for recipe in SDKS_FROM_FILE {
        let setup = SdkSetup::set();
        let mut worker = setup.worker(recipe);
        worker.call_succeeds();
        setup.wechat.kill_tokens();
        assert_eq!(worker.call(), "error 40001", "{recipe}");
        setup.sandbox.run(&["fetch", "--rejected", &setup.sandbox.token()]).exits(0);
        worker.call_succeeds();
        assert_eq!(setup.wxtoken_tap.requests(), [""; 0], "only the document is read");
    }
}

#[needs(sdks)]
#[test]
fn a_reader_of_the_document_does_not_use_an_expired_token() {
    let setup = SdkSetup::set();
    let expired = Sandbox::new(&setup.wechat);
    expired.publish(&setup.sandbox.token(), 7200, 7201);
    for recipe in SDKS_FROM_FILE {
        let mut program = setup.worker_program(recipe);
        program.env("WXTOKEN_FILE", expired.document_path());
        assert!(Worker::start(program).call().starts_with("error"), "{recipe}");
        assert_eq!(setup.wechat_tap.requests(), [""; 0], "{recipe}: no call to WeChat");
    }
}

/// Returns a host with the settings that the recipe's first lines give.
fn host_of_recipe(setup: &SdkSetup, redis: &Redis) -> Home {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sdk").join(FROM_REDIS);
    let recipe = fs::read_to_string(recipe).unwrap();
    let (_, settings) = recipe.split_once("    [redis]\n").expect("what to set");
    let also = settings.lines().next().unwrap().trim();
    let (store, wechat) = (redis.url(), setup.wechat.url());
    let home = Home::new(&format!(
        "store = \"{store}\"\n[account.shop]\nappid = \"{APPID}\"\nsecret_file = \"shop.secret\"\n\
         base_url = \"{wechat}\"\n[redis]\n{also}\n"
    ));
    home.put_secret("shop", SECRET);
    home
}

#[needs(redis, sdks)]
#[test]
fn wechatpys_redis_storage_finds_the_token_and_makes_no_request_without_one() {
    let redis = Redis::start();
    let setup = SdkSetup::set();
    let home = host_of_recipe(&setup, &redis);
    home.run(&["fetch"]).exits(0).silent();
    let program = |worker| {
        let mut program =
            if worker { setup.worker_program(FROM_REDIS) } else { setup.program(FROM_REDIS) };
        program.env("REDIS_URL", redis.url());
        program
    };
    assert!(Run::new(program(false)).exits(0).stdout.contains('.'), "addresses");
    let mut worker = Worker::start(program(true));
    worker.call_succeeds();
    // A new token is used at its next call.
    setup.wechat.kill_tokens();
    assert_eq!(worker.call(), "error 40001");
    let dead = redis.token("wxtoken:shop").unwrap();
    home.run(&["fetch", "shop", "--rejected", &dead]).exits(0).says(&["token "]);
    worker.call_succeeds();
    let asked = setup.wechat.asked();
    redis.cli(&["del", &format!("wechatpy:{APPID}_access_token")]);
    assert_eq!(worker.call(), "error RuntimeError");
    assert_eq!((setup.wechat.asked(), setup.wxtoken_tap.requests()), (asked, vec![]));
}

#[needs(sdks)]
#[test]
fn a_script_that_reports_a_rejected_token_gets_a_new_one_at_once() {
    for recipe in [SHELL_OVER_HTTP, SHELL_FROM_FILE] {
        let setup = SdkSetup::set();
        let dead = setup.sandbox.token();
        setup.wechat.kill_tokens();
        Run::new(setup.program(recipe)).exits(0);
        assert_ne!(setup.sandbox.token(), dead, "{recipe}");
        let expected =
            if recipe == SHELL_OVER_HTTP { vec!["GET /token", "POST /token"] } else { vec![] };
        assert_eq!(setup.wxtoken_tap.requests(), expected, "{recipe}");
    }
}

#[test]
fn both_readmes_link_every_recipe_and_no_link_is_dead() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sdk");
    let links = |readme: &str| {
        let text = fs::read_to_string(dir.join(readme)).unwrap();
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
        // The guides are in the same two languages.
        let is_of_language = |link: &str| link.starts_with("README") || link.contains("docs/");
        links.filter(|link| !is_of_language(link)).collect::<BTreeSet<_>>()
    };
    let linked = links("README.md");
    assert_eq!(linked, links("README.zh-CN.md"));
    for link in &linked {
        assert!(dir.join(link).exists(), "{link}");
    }
    for sdk in fs::read_dir(&dir).unwrap().map(Result::unwrap).filter(|it| it.path().is_dir()) {
        for file in fs::read_dir(sdk.path()).unwrap().map(Result::unwrap) {
            let name = format!(
                "{}/{}",
                sdk.path().file_name().unwrap().display(),
                file.file_name().display()
            );
            // Directories hold what runs of the recipes leave.
            let is_other =
                name.ends_with(".txt") || name.ends_with(".json") || file.path().is_dir();
            assert!(is_other || linked.contains(&name), "{name} is not linked");
        }
    }
}
