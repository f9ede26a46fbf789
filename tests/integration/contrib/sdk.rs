//! The recipes in `contrib/sdk`, with the real SDKs in them, against `wxtoken serve --refresh` and WeChat's stand-in.
//! `.ci/sdk` installs the SDKs; where they are missing nothing is tested, and that is said.

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

/// The recipes with an SDK in them: those that ask `serve`, and those that read the document.
const SDKS_OVER_HTTP: [&str; 2] = ["wechatpy/over_http.py", "co-wechat-api/over-http.js"];
const SDKS_FROM_FILE: [&str; 2] = ["wechatpy/from_file.py", "co-wechat-api/from-file.js"];

/// WeCom's.
const WECOM_OVER_HTTP: &str = "wechatpy/wecom.py";

/// The one with an SDK in it that reads from a Redis by itself.
const FROM_REDIS: &str = "wechatpy/from_redis.py";

/// The same without an SDK.
const SHELL_OVER_HTTP: &str = "shell/over-http.sh";
const SHELL_FROM_FILE: &str = "shell/from-file.sh";

/// Everything that a program with an SDK in it talks to.
struct Scene {
    sdks: PathBuf,
    wechat: WeChat,
    sandbox: Sandbox,
    key: String,
    /// Between the SDK and wxtoken.
    wxtoken_tap: Tap,
    /// Between the SDK and WeChat.
    wechat_tap: Tap,
    _server: Server,
}

impl Scene {
    /// WeChat as it should be, and `serve --refresh`; `None`, loudly, where there are no SDKs.
    fn set() -> Option<Scene> {
        Scene::around(WeChat::start(), "stable", Sandbox::serve_refreshing)
    }

    fn around(
        wechat: WeChat,
        api: &'static str,
        serve: fn(&Sandbox, &[&str]) -> Server,
    ) -> Option<Scene> {
        let sdks = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk");
        if !sdks.join("installed").exists() {
            skip("no SDKs; .ci/sdk installs them");
            return None;
        }
        let sandbox = Sandbox::against(&wechat).on(api);
        sandbox.run(&["fetch"]); // In vain where WeChat has a fault.
        let (key, line) = new_key();
        let keys = sandbox.path("keys");
        write_with_mode(&keys, &line, 0o600);
        let server = serve(&sandbox, &["--keys", keys.to_str().unwrap()]);
        let wxtoken_tap = Tap::before(server.address());
        let wechat_tap = Tap::before(wechat.address());
        Some(Scene { sdks, wechat, sandbox, key, wxtoken_tap, wechat_tap, _server: server })
    }

    /// A recipe as a program, not yet run: it knows where everything is, and nothing else of our environment.
    fn program(&self, recipe: &str) -> Command {
        self.interpreter(recipe, &[])
    }

    /// The same recipe in a process that stays, and makes its API call whenever told.
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
        let wxtoken = Path::new(env!("CARGO_BIN_EXE_wxtoken")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        command.args(args).arg(recipe).env_clear();
        command.env("PATH", format!("{}:{path}", wxtoken.display()));
        command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NODE_PATH", self.sdks.join("node_modules"));
        command.env("WXTOKEN_URL", self.wxtoken_tap.url()).env("WXTOKEN_KEY", &self.key);
        command.env("WXTOKEN_APPID", APPID).env("WXTOKEN_FILE", self.sandbox.document_path());
        command.env("WXTOKEN_SECRET_FILE", self.sandbox.path("secret"));
        command.env("WXTOKEN_BASE_URL", self.wechat.url());
        command.env("WECHAT_API", self.wechat_tap.url());
        command
    }
}

/// A client's key, and the line for the server's file.
fn new_key() -> (String, String) {
    let mut command = wxtoken();
    command.args(["key", "worker"]);
    let ran = Ran::of(command).exits(0);
    let word = |label| ran.stdout.lines().find_map(|line| line.strip_prefix(label)).expect(label);
    (word("key:").trim().to_owned(), word("line:").trim().to_owned())
}

/// Imports the recipe, and for each line on stdin makes its API call.
const PYTHON_WORKER: &str = r#"
import importlib.util, sys
spec = importlib.util.spec_from_file_location("recipe", sys.argv[1])
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)
for _ in sys.stdin:
    try:
        print("ok" if recipe.client.misc.get_wechat_ips() else "nothing", flush=True)
    except Exception as err:
        print("error", getattr(err, "errcode", None) or type(err).__name__, flush=True)
"#;

/// The same; does not wait for one call before it makes the next.
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

/// A process with an SDK in it.
struct Worker {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Worker {
    fn start(mut command: Command) -> Worker {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (say, said) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
        Worker { child, stdin, said }
    }

    /// Tells it to make an API call.
    fn tell(&mut self) {
        self.stdin.write_all(b"call\n").expect("it listens");
    }

    /// What came of a call that it was told to make: `ok`, or `error` and its code or name.
    #[track_caller]
    fn hear(&mut self) -> String {
        self.said.recv_timeout(PATIENCE).expect("it says what came of it, in time")
    }

    /// Makes an API call; what came of it.
    #[track_caller]
    fn call(&mut self) -> String {
        self.tell();
        self.hear()
    }

    #[track_caller]
    fn calls_well(&mut self) {
        assert_eq!(self.call(), "ok");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on all that is said between callers and a server, and remembers what was asked.
struct Tap {
    address: SocketAddr,
    came: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn before(server: SocketAddr) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new(Mutex::new(Vec::new()));
        let tap = Tap { address, came: Arc::clone(&came) };
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let (server, came) = (connect(server), Arc::clone(&came));
                let (answers, answered) =
                    (server.try_clone().unwrap(), caller.try_clone().unwrap());
                thread::spawn(move || {
                    pass_on(caller, server, |bytes| {
                        let mut came = came.lock().unwrap();
                        came.extend(bytes);
                        // A body has no line end of its own.
                        came.push(b'\n');
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

    /// What was asked since this was last called: the method and the path of each request.
    fn asked(&self) -> Vec<String> {
        let came = std::mem::take(&mut *self.came.lock().unwrap());
        let text = String::from_utf8(came).expect("requests are text");
        let requests = text.lines().filter_map(|line| line.strip_suffix(" HTTP/1.1"));
        requests.map(|request| request.split('?').next().unwrap().to_owned()).collect()
    }
}

/// Passes on what one side says until it ends, after showing it to `seen`.
fn pass_on(mut from: TcpStream, mut to: TcpStream, seen: impl Fn(&[u8])) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        seen(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write); // It may be gone already.
}

#[test]
fn every_recipe_makes_its_api_call_and_wechat_is_asked_for_one_token_in_all() {
    let Some(scene) = Scene::set() else { return };
    let shell = [SHELL_OVER_HTTP, SHELL_FROM_FILE];
    for recipe in [SDKS_OVER_HTTP, SDKS_FROM_FILE, shell].as_flattened() {
        let ran = Ran::of(scene.program(recipe)).exits(0);
        let mut words = ran.stdout.split(|c: char| !c.is_ascii_digit() && c != '.');
        let addresses = words.any(|word| word.parse::<Ipv4Addr>().is_ok());
        assert!(addresses, "{recipe}: {}", ran.stdout);
        assert_eq!(ran.stderr, "", "{recipe}");
    }
    assert_eq!(scene.wechat.asked(), 1);
}

#[test]
fn an_sdk_asks_for_a_token_once_and_keeps_it() {
    let Some(scene) = Scene::set() else { return };
    for recipe in SDKS_OVER_HTTP {
        let mut worker = scene.worker(recipe);
        for _ in 0..3 {
            worker.calls_well();
        }
        assert_eq!(scene.wxtoken_tap.asked(), ["GET /cgi-bin/token"], "{recipe}");
    }
}

/// What an SDK says by asking again, workers that start together say, too.
#[test]
fn workers_that_start_together_are_not_taken_for_a_storm() {
    let Some(scene) = Scene::set() else { return };
    let recipes = SDKS_OVER_HTTP.iter().cycle().take(8);
    let mut workers: Vec<Worker> = recipes.map(|recipe| scene.worker(recipe)).collect();
    workers.iter_mut().for_each(Worker::tell);
    for worker in &mut workers {
        assert_eq!(worker.hear(), "ok");
    }
    assert_eq!(scene.wxtoken_tap.asked().len(), workers.len());
    assert_eq!(scene.wechat.asked(), 1, "and the token that they have stays");
}

#[test]
fn many_api_calls_of_one_process_ask_for_a_token_together() {
    let Some(scene) = Scene::set() else { return };
    let mut worker = scene.worker(SDKS_OVER_HTTP[1]);
    let mut call_ten_times = || {
        (0..10).for_each(|_| worker.tell());
        (0..10).for_each(|_| assert_eq!(worker.hear(), "ok"));
        scene.wxtoken_tap.asked().len()
    };
    assert_eq!(call_ten_times(), 1);
    scene.wechat.kill_tokens();
    // Who is refused when the others have a new token already asks for himself.
    assert!(call_ten_times() <= 10);
}

/// A stranger kills the token that the SDK holds. WeChat tells the SDK, which can only ask wxtoken again.
#[test]
fn an_sdk_whose_token_was_killed_gets_over_it_within_one_api_call() {
    for recipe in SDKS_OVER_HTTP {
        let Some(scene) = Scene::set() else { return };
        let mut worker = scene.worker(recipe);
        worker.calls_well();
        let (mints, _) = (scene.wechat.mints(), scene.wxtoken_tap.asked());
        scene.wechat.kill_tokens();

        worker.calls_well();
        let asked = scene.wxtoken_tap.asked();
        assert!((1..=5).contains(&asked.len()), "{recipe}: {asked:?}");
        assert_eq!(scene.wechat.mints(), mints + 1, "{recipe}");

        worker.calls_well();
        assert_eq!(scene.wxtoken_tap.asked(), [""; 0], "{recipe}: the new token is kept");
    }
}

/// A process that is new never held another token: its first two questions are all that there is to go by.
#[test]
fn an_sdk_that_starts_with_a_killed_token_gets_over_it_within_one_api_call() {
    for recipe in SDKS_OVER_HTTP {
        let Some(scene) = Scene::set() else { return };
        scene.wechat.kill_tokens();
        let mut worker = scene.worker(recipe);
        worker.calls_well();
        let asked = scene.wxtoken_tap.asked();
        assert!((2..=5).contains(&asked.len()), "{recipe}: {asked:?}");
        worker.calls_well();
        assert_eq!(scene.wxtoken_tap.asked(), [""; 0], "{recipe}");
    }
}

#[test]
fn an_sdk_for_wecom_keeps_its_token_and_gets_over_its_death_within_one_api_call() {
    let Some(scene) = Scene::around(WeChat::start(), "work", Sandbox::serve_refreshing) else {
        return;
    };
    let mut worker = scene.worker(WECOM_OVER_HTTP);
    worker.calls_well();
    worker.calls_well();
    assert_eq!(scene.wxtoken_tap.asked(), ["GET /cgi-bin/gettoken"]);
    scene.wechat.kill_tokens();
    worker.calls_well();
    let asked = scene.wxtoken_tap.asked();
    assert!((1..=5).contains(&asked.len()), "{asked:?}");
    worker.calls_well();
    assert_eq!(scene.wxtoken_tap.asked(), [""; 0], "the new token is kept");

    Ran::of(scene.program(WECOM_OVER_HTTP)).exits(0);
}

/// Where nobody can replace the token: one of them gives up by itself, the other would ask until its process breaks.
#[test]
fn a_loop_that_nothing_heals_is_ended_long_before_the_sdk_breaks() {
    for (recipe, said) in SDKS_OVER_HTTP.into_iter().zip(["error 45011", "error 40001"]) {
        let Some(scene) = Scene::around(WeChat::start(), "stable", Sandbox::serve) else { return };
        scene.wechat.kill_tokens();
        assert_eq!(scene.worker(recipe).call(), said, "{recipe}");
        let asked = scene.wxtoken_tap.asked().len();
        assert!(asked < 300, "{recipe}: {asked}, and wechatpy breaks after 489");
    }
}

#[test]
fn an_sdk_with_a_wrong_key_or_appid_is_refused_once_and_does_not_ask_again() {
    let Some(scene) = Scene::set() else { return };
    let stranger = new_key().0;
    for recipe in SDKS_OVER_HTTP {
        for (name, wrong, refused) in [
            ("WXTOKEN_KEY", stranger.as_str(), "error 40125"),
            ("WXTOKEN_APPID", "wxffffffffffffffff", "error 40013"),
        ] {
            let mut program = scene.worker_program(recipe);
            program.env(name, wrong);
            assert_eq!(Worker::start(program).call(), refused, "{recipe}");
            assert_eq!(scene.wxtoken_tap.asked(), ["GET /cgi-bin/token"], "{recipe}");
        }
    }
    assert_eq!(scene.wechat_tap.asked(), [""; 0], "WeChat did not hear of it");
}

#[test]
fn an_sdk_gets_an_error_and_does_not_loop_while_wechat_is_down() {
    let Some(scene) = Scene::set() else { return };
    for recipe in SDKS_OVER_HTTP {
        let mut worker = scene.worker(recipe);
        worker.calls_well();
        scene.wxtoken_tap.asked();
        scene.wechat_tap.asked();
        for fault in ["http:502", "reset", "errcode:-1"] {
            scene.wechat.fault(fault);
            let said = worker.call();
            assert!(said.starts_with("error"), "{recipe}, {fault}: {said}");
            assert_eq!(scene.wxtoken_tap.asked(), [""; 0], "{recipe}, {fault}");
            assert_eq!(scene.wechat_tap.asked().len(), 1, "{recipe}, {fault}");
        }
        scene.wechat.fault("none");
        worker.calls_well();
    }
}

#[test]
fn an_sdk_is_told_once_that_there_is_no_token_and_calls_well_when_there_is_one() {
    for recipe in SDKS_OVER_HTTP {
        let wechat = WeChat::with(&["--fault", "errcode:40164"]);
        let Some(scene) = Scene::around(wechat, "stable", Sandbox::serve_refreshing) else {
            return;
        };
        let mut worker = scene.worker(recipe);
        assert_eq!(worker.call(), "error -1", "{recipe}");
        assert_eq!(scene.wxtoken_tap.asked(), ["GET /cgi-bin/token"], "{recipe}");
        scene.wechat.fault("none");
        scene.sandbox.run(&["fetch"]).exits(0);
        worker.calls_well();
    }
}

#[test]
fn a_reader_of_the_file_has_a_rewritten_token_at_its_next_call() {
    for recipe in SDKS_FROM_FILE {
        let Some(scene) = Scene::set() else { return };
        let mut worker = scene.worker(recipe);
        worker.calls_well();
        scene.wechat.kill_tokens();
        assert_eq!(worker.call(), "error 40001", "{recipe}");
        scene.sandbox.run(&["fetch", "--rejected", &scene.sandbox.token()]).exits(0);
        worker.calls_well();
        assert_eq!(scene.wxtoken_tap.asked(), [""; 0], "nobody but the file was asked");
    }
}

#[test]
fn a_reader_of_the_file_does_not_call_with_a_token_that_has_expired() {
    let Some(scene) = Scene::set() else { return };
    let elsewhere = Sandbox::against(&scene.wechat);
    elsewhere.publish(&scene.sandbox.token(), 7200, 7201);
    for recipe in SDKS_FROM_FILE {
        let mut program = scene.worker_program(recipe);
        program.env("WXTOKEN_FILE", elsewhere.document_path());
        assert!(Worker::start(program).call().starts_with("error"), "{recipe}");
        assert_eq!(scene.wechat_tap.asked(), [""; 0], "{recipe}: WeChat did not hear of it");
    }
}

/// As the recipe says it in its first lines.
fn host_of_recipe(scene: &Scene, redis: &Redis) -> Home {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sdk").join(FROM_REDIS);
    let recipe = fs::read_to_string(recipe).unwrap();
    let (_, settings) = recipe.split_once("    [redis]\n").expect("what to set");
    let also = settings.lines().next().unwrap().trim();
    let (store, wechat) = (redis.url(), scene.wechat.url());
    let home = Home::with(&format!(
        "store = \"{store}\"\n[account.shop]\nappid = \"{APPID}\"\nsecret_file = \"shop.secret\"\n\
         base_url = \"{wechat}\"\n[redis]\n{also}\n"
    ));
    home.put_secret("shop", SECRET);
    home
}

#[test]
fn wechatpys_own_redis_storage_finds_the_token_and_asks_nobody_when_there_is_none() {
    let Some(redis) = Redis::start() else { return };
    let Some(scene) = Scene::set() else { return };
    let home = host_of_recipe(&scene, &redis);
    home.run(&["fetch"]).exits(0).silent();
    let program = |worker| {
        let mut program =
            if worker { scene.worker_program(FROM_REDIS) } else { scene.program(FROM_REDIS) };
        program.env("REDIS_URL", redis.url());
        program
    };
    assert!(Ran::of(program(false)).exits(0).stdout.contains('.'), "addresses");
    let mut worker = Worker::start(program(true));
    worker.calls_well();
    // Another token is there for its next call.
    scene.wechat.kill_tokens();
    assert_eq!(worker.call(), "error 40001");
    let dead = redis.token("wxtoken:shop").unwrap();
    home.run(&["fetch", "shop", "--rejected", &dead]).exits(0).silent();
    worker.calls_well();
    let asked = scene.wechat.asked();
    redis.cli(&["del", &format!("wechatpy:{APPID}_access_token")]);
    assert_eq!(worker.call(), "error RuntimeError");
    assert_eq!((scene.wechat.asked(), scene.wxtoken_tap.asked()), (asked, vec![]));
}

#[test]
fn a_script_that_says_which_token_was_rejected_has_another_at_once() {
    for recipe in [SHELL_OVER_HTTP, SHELL_FROM_FILE] {
        let Some(scene) = Scene::set() else { return };
        let dead = scene.sandbox.token();
        scene.wechat.kill_tokens();
        Ran::of(scene.program(recipe)).exits(0);
        assert_ne!(scene.sandbox.token(), dead, "{recipe}");
        let told =
            if recipe == SHELL_OVER_HTTP { vec!["GET /token", "POST /token"] } else { vec![] };
        assert_eq!(scene.wxtoken_tap.asked(), told, "{recipe}");
    }
}

#[test]
fn every_recipe_is_linked_by_both_readmes_and_every_link_leads_somewhere() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sdk");
    let links = |readme: &str| {
        let text = fs::read_to_string(dir.join(readme)).unwrap();
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
        links.filter(|link| !link.starts_with("README")).collect::<BTreeSet<_>>()
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
            // What a recipe's run leaves is in directories.
            let is_other =
                name.ends_with(".txt") || name.ends_with(".json") || file.path().is_dir();
            assert!(is_other || linked.contains(&name), "{name} is linked nowhere");
        }
    }
}
