//! Redis as the store of many hosts: one refresh among them all although hosts are paused, killed or disconnected, and a good
//! token as long as any host has one.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::proxy::HoldingProxy;
use crate::support::redis::Redis;
use crate::support::*;

/// Starts a stand-in that knows the account `a0`.
fn wechat(more: &[&str]) -> WeChat {
    wechat_with_accounts(1, more)
}

/// Returns a host whose account `a0` on this API is in the Redis at `url`, with `more` in `[redis]`.
fn host_on(api: &str, wechat: &WeChat, url: &str, more: &str) -> Home {
    Home::on_redis(api, &wechat.url(), url, more)
}

fn host(wechat: &WeChat, redis: &Redis) -> Home {
    host_on("classic", wechat, &redis.url(), "timeout = \"10s\"")
}

fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Returns the token that `get` prints.
#[track_caller]
fn get_token(home: &Home) -> String {
    home.run(&["get", "a0", "--raw"]).exits(0).stdout.trim().to_owned()
}

fn mode_of_copy(home: &Home) -> u32 {
    fs::metadata(home.document_path("a0")).unwrap().permissions().mode() & 0o777
}

/// Returns how long the key still lives.
fn seconds_to_live(redis: &Redis, key: &str) -> f64 {
    redis.cli(&["pttl", key]).parse::<f64>().unwrap() / 1000.0
}

// Documents and copies

#[needs(redis)]
#[test]
fn a_document_published_by_one_host_is_read_and_copied_by_another() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [fetching, reading] = [(); 2].map(|()| host(&wechat, &redis));
    reading
        .run(&["get", "a0"])
        .exits(3)
        .says(&["a0: Run ", ": no token: wxtoken:a0 at redis://127.0.0.1"]);
    fetching.run(&["fetch"]).exits(0).silent();
    let token = redis.token("wxtoken:a0").expect("a document");
    assert_eq!(get_token(&reading), token);
    assert!(
        (7100.0..=7200.0).contains(&seconds_to_live(&redis, "wxtoken:a0")),
        "the key expires with the token"
    );
    assert_eq!(redis.cli(&["exists", "wxtoken:a0:lock"]), "0");
    for home in [&fetching, &reading] {
        assert_eq!(home.token("a0").as_deref(), Some(&*token));
        assert_eq!(mode_of_copy(home), 0o600);
    }
    let row = reading.run(&["status", "--format", "json"]).exits(0).json();
    assert_eq!(row["accounts"][0]["state"], "live");
    fetching.run(&["fetch"]).exits(0).silent();
    reading.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.mints(), 1);
}

#[needs(redis)]
#[test]
fn mode_applies_to_the_copy_of_the_publishing_host_and_a_readers_copy_stays_private() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [fetching, reading] = [(); 2].map(|()| host(&wechat, &redis));
    fetching.run(&["fetch", "--mode", "640"]).exits(0);
    get_token(&reading);
    assert_eq!([&fetching, &reading].map(mode_of_copy), [0o640, 0o600]);
    fetching.run(&["fetch", "--mode", "600"]).exits(0);
    assert_eq!(mode_of_copy(&fetching), 0o600, "also if nothing is due");
    fetching.run(&["fetch", "--mode", "640", "--force", "a0"]).exits(0);
    get_token(&reading);
    assert_eq!([&fetching, &reading].map(mode_of_copy), [0o640, 0o600]);
}

#[needs(redis)]
#[test]
fn fifty_concurrent_fetches_on_two_hosts_make_one_call() {
    let redis = Redis::start();
    let wechat = wechat(&["--fault", "slow:1"]);
    let homes = [(); 2].map(|()| host(&wechat, &redis));
    let fetches: Vec<_> = (0..50).map(|n| spawn(homes[n % 2].command(&["fetch"]))).collect();
    for fetch in fetches {
        let output = fetch.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!((wechat.asked(), wechat.mints()), (1, 1));
    assert_eq!(homes[0].token("a0"), homes[1].token("a0"));
}

/// Passes on what goes to Redis, and holds a document until it is told to let it through.
fn holding_documents(redis: &Redis) -> (String, mpsc::Sender<()>) {
    let backend = redis.url().trim_start_matches("redis://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (release, released) = mpsc::channel();
    let released = Arc::new(Mutex::new(released));
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut server = TcpStream::connect(&backend).unwrap();
            let mut answers = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut answers.0, &mut answers.1));
            let released = released.clone();
            thread::spawn(move || {
                let mut bytes = [0; 65536];
                while let Ok(count @ 1..) = client.read(&mut bytes) {
                    if bytes[..count].windows(14).any(|it| it == b"\"access_token\"") {
                        let _ = released.lock().unwrap().recv();
                    }
                    server.write_all(&bytes[..count]).unwrap();
                }
            });
        }
    });
    (url, release)
}

#[needs(redis)]
#[test]
fn a_document_that_another_process_has_put_back_meanwhile_is_published_all_the_same() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    let config = home.config();
    let (url, release) = holding_documents(&redis);
    home.write(&config.replace(&redis.url(), &url));
    let fetch = spawn(home.command(&["fetch", "a0"]));
    eventually("there is a copy", || home.document_path("a0").exists());
    home.write(&config);
    home.run(&["fetch", "a0"]).exits(0);
    assert!(redis.cli(&["get", "wxtoken:a0"]).contains("put_back"));
    drop(release);
    let output = fetch.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!redis.cli(&["get", "wxtoken:a0"]).contains("put_back"));
    assert_eq!((redis.token("wxtoken:a0"), wechat.mints()), (home.token("a0"), 1));
}

#[needs(redis)]
#[test]
fn a_forced_token_replaces_the_previous_one_on_all_hosts() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [one, other] = [(); 2].map(|()| host(&wechat, &redis));
    one.run(&["fetch"]).exits(0);
    let before = get_token(&other);
    one.run(&["fetch", "--force", "a0"]).exits(0);
    let after = get_token(&other);
    assert_ne!(after, before);
    other.run(&["fetch", "a0", "--rejected", &before]).exits(0).says(&["token "]);
    assert_eq!((get_token(&one), wechat.mints()), (after, 2));
}

// Lock and fence

/// A fetch that holds the lock and waits for the answer of WeChat.
struct WaitingFetch {
    child: Child,
    proxy: HoldingProxy,
}

impl WaitingFetch {
    fn start(home: &Home, wechat: &WeChat, redis: &Redis) -> WaitingFetch {
        WaitingFetch::with_timeout(home, wechat, redis, "2m")
    }

    fn with_timeout(home: &Home, wechat: &WeChat, redis: &Redis, timeout: &str) -> WaitingFetch {
        let proxy = HoldingProxy::new(wechat.address());
        proxy.hold();
        let config = home.config();
        home.write(&config.replace(&wechat.url(), &proxy.url()));
        let asked = wechat.asked();
        let child = spawn(home.command(&["fetch", "a0", "--force", "--timeout", timeout]));
        eventually("the call has begun", || wechat.asked() > asked);
        home.write(&config);
        assert_eq!(redis.cli(&["exists", "wxtoken:a0:lock"]), "1");
        WaitingFetch { child, proxy }
    }

    /// Lets it have the answer, and waits until it ends.
    fn finish(self) -> Output {
        self.proxy.release();
        self.child.wait_with_output().unwrap()
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

#[needs(redis)]
#[test]
fn a_paused_host_that_lost_the_lock_does_not_overwrite_a_newer_token() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [paused, other] = [(); 2].map(|()| host(&wechat, &redis));
    let fetch = WaitingFetch::start(&paused, &wechat, &redis);
    signal(&fetch.child, "STOP");
    // As if the lock had expired.
    redis.cli(&["del", "wxtoken:a0:lock"]);
    thread::sleep(Duration::from_millis(1100)); // created_at has a resolution of a second.
    other.run(&["fetch"]).exits(0).silent();
    let newer = redis.token("wxtoken:a0").unwrap();
    signal(&fetch.child, "CONT");
    let output = fetch.finish();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("another host has published a newer document"), "{stderr}");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(redis.token("wxtoken:a0").as_deref(), Some(&*newer));
    assert_eq!([get_token(&paused), get_token(&other)], [&*newer, &*newer]);
    assert!(wechat.is_alive(&newer));
}

/// Another owner of the lock may have asked WeChat as well, so that one of the two tokens ends after the overlap.
#[needs(redis)]
#[test]
fn promise_4_a_token_of_a_host_that_lost_the_lock_is_promised_for_the_overlap() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [paused, other] = [(); 2].map(|()| host(&wechat, &redis));
    let fetch = WaitingFetch::start(&paused, &wechat, &redis);
    redis.cli(&["set", "wxtoken:a0:lock", "process 1 on db/x"]);
    let output = fetch.finish();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let life = |home: &Home| home.run(&["get", "a0"]).exits(0).json()["expires_in"].as_u64();
    assert_eq!(wechat.mints(), 1);
    for home in [&paused, &other] {
        assert!((1..=300).contains(&life(home).unwrap()));
    }
    redis.cli(&["del", "wxtoken:a0:lock"]);
    other.run(&["fetch"]).exits(0).silent();
    assert!(life(&paused).unwrap() > 7000, "it was due");
}

#[needs(redis)]
#[test]
fn promise_4_a_host_that_lost_the_lock_does_not_restore_what_it_has_shortened() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [paused, other] = [(); 2].map(|()| host(&wechat, &redis));
    paused.run(&["fetch"]).exits(0);
    wechat.fault("errcode:40164");
    let fetch = WaitingFetch::start(&paused, &wechat, &redis);
    redis.cli(&["set", "wxtoken:a0:lock", "process 1 on db/x"]);
    let output = fetch.finish();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("the document cannot be put back"), "{stderr}");
    for home in [&paused, &other] {
        let life = home.run(&["get", "a0"]).exits(0).json()["expires_in"].as_u64().unwrap();
        assert!(life <= 300, "{life}");
    }
}

#[needs(redis)]
#[test]
fn a_host_that_lost_the_lock_makes_no_call() {
    let redis = Redis::start();
    let wechat = wechat(&["--fault", "errcode:-1"]);
    let home = host(&wechat, &redis);
    // After the first attempt has failed, the lock is taken by another owner.
    let fetch = spawn(home.command(&["fetch"]));
    eventually("the call has begun", || wechat.asked() == 1);
    redis.cli(&["set", "wxtoken:a0:lock", "another-owner"]);
    let output = fetch.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the lock wxtoken:a0:lock was lost to another host"), "{stderr}");
    assert_eq!((output.status.code(), wechat.asked()), (Some(1), 1), "{stderr}");
    assert_eq!(redis.cli(&["get", "wxtoken:a0:lock"]), "another-owner");
}

#[needs(redis)]
#[test]
fn a_lock_of_another_host_is_not_removed_and_expires() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    redis.cli(&["set", "wxtoken:a0:lock", "process 1 on db/x", "px", "600000"]);
    home.run(&["fetch", "--timeout", "1s"]).exits(6).says(&["another fetch held the lock"]);
    assert_eq!(redis.cli(&["get", "wxtoken:a0:lock"]), "process 1 on db/x");
    redis.cli(&["pexpire", "wxtoken:a0:lock", "500"]);
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.mints(), 1);
}

/// Starts what passes requests on to this Redis, and their answers back. `look` sees each request first, and says whether its
/// answer is lost. Returns the URL.
fn relay(redis: &Redis, look: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own_port, port) = (listener.local_addr().unwrap().port(), redis.port());
    let look = Arc::new(look);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let look = look.clone();
            thread::spawn(move || {
                let server = TcpStream::connect(("127.0.0.1", port))?;
                relay_one_by_one(client, server, &*look)
            });
        }
    });
    redis.url().replace(&port.to_string(), &own_port.to_string())
}

fn relay_one_by_one(
    mut client: TcpStream,
    mut redis: TcpStream,
    look: &dyn Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = client.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        let is_lost = look(&bytes[..read]);
        redis.write_all(&bytes[..read])?;
        let read = redis.read(&mut bytes)?;
        if !is_lost {
            client.write_all(&bytes[..read])?;
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[needs(redis)]
#[test]
fn a_lock_whose_taking_was_not_confirmed_is_released() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let is_lost = AtomicBool::new(false);
    let url = relay(&redis, move |request| {
        contains(request, "'nx'") && !is_lost.swap(true, Ordering::SeqCst)
    });
    let home = host_on("classic", &wechat, &url, "timeout = \"1s\"");
    home.run(&["fetch"]).exits(1).says(&["no answer within 1s"]);
    assert_eq!(redis.cli(&["exists", "wxtoken:a0:lock"]), "0");
    home.run(&["fetch"]).exits(0);
    assert_eq!(wechat.mints(), 1);
}

#[needs(redis)]
#[test]
fn a_lock_is_extended_while_wechat_is_slow() {
    let redis = Redis::start();
    let wechat = wechat(&["--fault", "hang"]);
    let home = host(&wechat, &redis);
    let fetch = spawn(home.command(&["fetch", "a0"]));
    eventually("the call has begun", || wechat.asked() == 1);
    redis.cli(&["pexpire", "wxtoken:a0:lock", "8000"]);
    eventually("the lock is extended", || seconds_to_live(&redis, "wxtoken:a0:lock") > 30.0);
    signal(&fetch, "KILL");
    fetch.wait_with_output().unwrap();
    assert!(
        seconds_to_live(&redis, "wxtoken:a0:lock") > 8.0,
        "a killed fetch does not release the lock"
    );
}

// Redis down

#[needs(redis)]
#[test]
fn with_redis_down_get_reads_the_copy_and_fetch_makes_no_call() {
    let mut redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.run(&["fetch"]).exits(0);
    let token = get_token(&home);
    for is_paused in [true, false] {
        if is_paused {
            home.write(&home.config().replace("10s", "500ms"));
            redis.pause()
        } else {
            home.write(&home.config().replace("500ms", "10s"));
            redis.kill()
        }
        assert_eq!(get_token(&home), token);
        home.run(&["fetch", "--force", "a0"]).exits(1).says(&[
            "a0",
            "WeChat was not asked",
            "cannot reach",
        ]);
        assert_eq!(wechat.asked(), 1);
        if is_paused {
            redis.resume();
        }
    }
    fs::remove_file(home.document_path("a0")).unwrap();
    home.run(&["get", "a0"]).exits(3).says(&["no token", ": cannot reach redis://127.0.0.1"]);
    redis.restart();
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.mints(), 2, "no host had a copy");
}

#[needs(redis)]
#[test]
fn check_writes_to_redis_names_the_lock_holder_and_checks_the_copy_while_redis_is_down() {
    let mut redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.run(&["fetch"]).exits(0);
    let keys = redis.cli(&["keys", "*"]);
    let stdout = home.run(&["check"]).exits(0).stdout;
    assert!(stdout.contains("✓ a0  store ") && stdout.contains("Redis answers"), "{stdout}");
    assert_eq!(redis.cli(&["keys", "*"]), keys, "no key is left");
    redis.cli(&["set", "wxtoken:a0:lock", "process 1 on db/x", "px", "60000"]);
    let stdout = home.run(&["check"]).exits(0).stdout;
    assert!(stdout.contains("! a0  lock         held by process 1 on db: "), "{stdout}");
    redis.kill();
    let stdout = home.run(&["check"]).exits(1).stdout;
    assert!(
        stdout.contains("✗ a0  store ") && stdout.contains("请检查 Redis 是否运行"),
        "{stdout}"
    );
    let same = "unknown, for the same reason";
    assert!(stdout.contains(&format!("! a0  lock         {same}")), "{stdout}");
    assert!(stdout.contains("✓ a0  token ") && stdout.contains(" is honoured"), "{stdout}");
    // Without a copy the published token is unknown, and a fetch would not help.
    fs::remove_file(home.document_path("a0")).unwrap();
    let stdout = home.run(&["check"]).exits(3).stdout;
    assert!(stdout.contains(&format!("✗ a0  token        {same}")), "{stdout}");
    assert_eq!(stdout.matches("Check that Redis runs").count(), 1, "{stdout}");
    assert!(!stdout.contains("Run wxtoken fetch"), "{stdout}");
    assert_eq!(wechat.calls()["token"], 1, "the call of fetch");
}

#[needs(redis)]
#[test]
fn fetch_restores_a_flushed_document_from_its_copy() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [one, other] = [(); 2].map(|()| host(&wechat, &redis));
    one.run(&["fetch"]).exits(0);
    let token = redis.token("wxtoken:a0").unwrap();
    redis.cli(&["flushall"]);
    assert_eq!(get_token(&one), token);
    assert_eq!(redis.cli(&["dbsize"]), "0", "get writes nothing");
    one.run(&["fetch", "-v", "-v"]).exits(0);
    assert_eq!(redis.token("wxtoken:a0").as_deref(), Some(&*token));
    other.run(&["fetch"]).exits(0).silent();
    assert_eq!((get_token(&other), wechat.mints()), (token, 1));
}

/// The fetch shortens the document before its call, and Redis loses that. What the other host has is the whole document.
#[needs(redis)]
#[test]
fn a_document_that_redis_lost_during_a_forced_fetch_is_promised_for_less_than_the_overlap() {
    for api in ["classic", "stable"] {
        let redis = Redis::start();
        let wechat = wechat(&[]);
        let [one, other] =
            [(); 2].map(|()| host_on(api, &wechat, &redis.url(), "timeout = \"500ms\""));
        one.run(&["fetch"]).exits(0);
        let token = get_token(&other);
        let life = || other.run(&["get", "a0"]).exits(0).json()["expires_in"].as_u64().unwrap();
        assert!(life() > 7000);
        let fetch = WaitingFetch::start(&one, &wechat, &redis);
        redis.cli(&["flushall"]);
        assert!(life() <= 240, "{api}: read from the copy");
        if api == "classic" {
            other.run(&["fetch"]).exits(0).silent();
            assert_eq!(redis.token("wxtoken:a0").as_deref(), Some(&*token), "it is put back");
            assert!(life() <= 240, "{api}: put back");
            assert_eq!(get_token(&other), token);
        }
        let server = other.serve(&[]);
        let served = || server.get("/token").json()["expires_in"].as_u64().unwrap();
        assert!(served() <= 240, "{api}");
        let output = fetch.finish();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let next = redis.token("wxtoken:a0").unwrap();
        assert_ne!(next, token);
        assert_eq!([get_token(&one), get_token(&other)], [&*next, &*next], "{api}");
        let token = || server.get("/token").json()["access_token"].as_str().map(str::to_owned);
        eventually("the new one is served", || token().as_ref() == Some(&next));
        // The lock was lost as well: on classic another host may have asked since.
        assert_eq!(life() <= 300, api == "classic", "{api}: {}", life());
        assert!(wechat.is_alive(&next), "{api}");
        assert_eq!(wechat.mints(), 2, "{api}");
    }
}

#[needs(redis)]
#[test]
fn a_document_that_was_put_back_is_confirmed_where_that_costs_no_mint() {
    for (api, promise) in [("classic", 0..=240), ("stable", 7000..=7200), ("work", 7000..=7200)] {
        let redis = Redis::start();
        let wechat = wechat(&[]);
        let home = host_on(api, &wechat, &redis.url(), "timeout = \"500ms\"");
        home.run(&["fetch"]).exits(0);
        let token = redis.token("wxtoken:a0");
        redis.cli(&["flushall"]);
        home.run(&["fetch"]).exits(0).silent();
        assert_eq!(redis.token("wxtoken:a0"), token, "{api}");
        let life = home.run(&["get", "a0"]).exits(0).json()["expires_in"].as_u64().unwrap();
        assert!(promise.contains(&life), "{api}: {life}");
        assert_eq!(wechat.mints(), 1, "{api}");
    }
}

#[needs(redis)]
#[test]
fn a_token_that_could_not_be_published_is_published_by_the_next_fetch() {
    let mut redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    // It tries to publish until the timeout.
    let fetch = WaitingFetch::with_timeout(&home, &wechat, &redis, "15s");
    redis.kill();
    let output = fetch.finish();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is published by the next run"), "{stderr}");
    let token = home.token("a0").expect("the copy has it");
    assert_eq!(get_token(&home), token);
    redis.restart();
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!((redis.token("wxtoken:a0"), wechat.mints()), (Some(token), 1));
}

/// A host killed between its call and publishing leaves a token that may be dead. Its document was shortened before the call.
#[needs(redis)]
#[test]
fn a_copy_does_not_outlive_a_shortened_document() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [killed, other] = [(); 2].map(|()| host(&wechat, &redis));
    killed.run(&["fetch"]).exits(0);
    get_token(&other);
    let fetch = WaitingFetch::start(&killed, &wechat, &redis);
    signal(&fetch.child, "KILL");
    fetch.finish();
    // The key outlives all copies; the document in it expires within five minutes.
    assert!(seconds_to_live(&redis, "wxtoken:a0") > 7000.0);
    let row = other.run(&["status", "--format", "json"]).json();
    assert!(row["accounts"][0]["expires_in"].as_u64().unwrap() <= 300, "{row}");
}

/// WeCom states a whole life with every answer, however old the token is.
#[needs(redis)]
#[test]
fn promise_4_a_token_that_is_issued_again_after_its_document_has_ended_is_not_taken_for_a_new_one()
{
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [one, other] = [(); 2].map(|()| host_on("work", &wechat, &redis.url(), ""));
    one.run(&["fetch"]).exits(0);
    let token = redis.token("wxtoken:a0").unwrap();
    assert!(seconds_to_live(&redis, "wxtoken:a0") <= 7200.0);
    assert!(seconds_to_live(&redis, "wxtoken:a0:last") > 86_400.0, "it is remembered");
    // As if its answer had been the first after lost ones.
    let mut document: serde_json::Value =
        serde_json::from_str(&redis.cli(&["get", "wxtoken:a0"])).unwrap();
    document["expires_in"] = 1.into();
    redis.cli(&["set", "wxtoken:a0", &document.to_string(), "px", "1"]);
    redis.cli(&["set", "wxtoken:a0:last", &document.to_string()]);
    let is_gone = || redis.cli(&["exists", "wxtoken:a0"]) == "0";
    eventually("it has ended", || is_gone() && age(&document) >= 2.0);
    other.run(&["fetch"]).exits(5).says(&["has ended"]);
    assert!(is_gone() && !other.document_path("a0").exists());
    assert!(wechat.is_alive(&token) && wechat.mints() == 1);
}

/// Returns when requests were sent whose answers were lost, as all hosts know it.
fn lost(redis: &Redis) -> Vec<String> {
    match &*redis.cli(&["get", "wxtoken:a0:lost"]) {
        "" => Vec::new(),
        list => serde_json::from_str(list).unwrap(),
    }
}

/// Has all hosts know of so many requests of then without an answer.
fn lose(redis: &Redis, secs_ago: i64, count: usize) {
    let list = serde_json::to_string(&vec![time_ago(secs_ago); count]).unwrap();
    redis.cli(&["set", "wxtoken:a0:lost", &list]);
}

/// WeCom issued it to a process that was killed before it published it.
#[needs(redis)]
#[test]
fn promise_4_a_token_that_another_host_was_issued_and_has_not_published_is_not_taken_for_a_new_one()
{
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [killed, other] = [(); 2].map(|()| host_on("work", &wechat, &redis.url(), ""));
    let fetch = WaitingFetch::start(&killed, &wechat, &redis);
    signal(&fetch.child, "KILL");
    fetch.finish();
    assert_eq!(lost(&redis).len(), 1, "it is known to all hosts");
    assert!(seconds_to_live(&redis, "wxtoken:a0:lost") > 86_400.0);
    redis.cli(&["del", "wxtoken:a0:lock"]);
    lose(&redis, 1800, 1);
    other.run(&["fetch"]).exits(0);
    let life = other.run(&["get", "a0"]).exits(0).json()["expires_in"].as_u64().unwrap();
    assert!((1..=5400).contains(&life), "{life}");
    assert_eq!((wechat.mints(), lost(&redis).len()), (1, 0), "its age is known from then on");
}

#[needs(redis)]
#[test]
fn answers_that_any_host_has_lost_are_rationed_on_all_of_them() {
    let redis = Redis::start();
    let wechat = wechat(&["--fault", "lost"]);
    let [one, other] = [(); 2].map(|()| host(&wechat, &redis));
    one.run(&["fetch"]).exits(5);
    let minted = wechat.mints();
    assert_eq!(lost(&redis).len() as u64, minted, "each of them is known to all hosts");
    wechat.fault("none");
    lose(&redis, 60, 20);
    for home in [&one, &other] {
        home.run(&["fetch"]).exits(5).says(&["answers of WeChat were lost within a day"]);
    }
    // What Redis loses each host still knows.
    redis.cli(&["flushall"]);
    other.run(&["fetch"]).exits(5).says(&["20 answers of WeChat were lost within a day"]);
    assert_eq!(wechat.mints(), minted);
    other.run(&["fetch", "--force", "a0"]).exits(0);
    assert_eq!(
        (wechat.mints(), lost(&redis).len()),
        (minted + 1, 20),
        "an answer that came is none"
    );
    // What another program has put there is no list of times.
    redis.cli(&["set", "wxtoken:a0:lost", "x"]);
    one.run(&["fetch", "--force", "a0"]).exits(0);
    assert!(lost(&redis).len() >= 20);
}

/// Returns the age of a document by its clock of the machine.
fn age(document: &serde_json::Value) -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let now = uptime.split(' ').next().unwrap().parse::<f64>().unwrap();
    now - document["boottime"].as_f64().unwrap()
}

#[needs(redis)]
#[test]
fn promise_4_a_token_that_another_host_may_have_replaced_is_promised_for_a_second_at_a_time() {
    let mut redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.write(&home.config().replace("api = ", "refresh_before = \"1h\"\napi = "));
    home.run(&["fetch"]).exits(0);
    let mut document: serde_json::Value =
        serde_json::from_str(&redis.cli(&["get", "wxtoken:a0"])).unwrap();
    // It has been due for ten minutes.
    document["created_at"] = format!("{}Z", &time_ago(4200)[..19]).into();
    let fields = document.as_object_mut().unwrap();
    fields.retain(|name, _| !name.starts_with("boot"));
    let copy = home.document_path("a0");
    fs::remove_file(&copy).unwrap();
    redis.cli(&["set", "wxtoken:a0", &document.to_string(), "ex", "3000"]);
    let life = || home.run(&["get", "a0"]).exits(0).json()["expires_in"].as_u64().unwrap();
    assert_eq!(life(), 300);
    redis.kill();
    assert!((200..=300).contains(&life()), "the copy was in force when it was written");
    let written = std::time::SystemTime::now() - Duration::from_secs(1800);
    fs::File::options().write(true).open(&copy).unwrap().set_modified(written).unwrap();
    assert_eq!(life(), 1);
    let server = home.serve(&[]);
    let served = || server.get("/token").json()["expires_in"].as_u64();
    assert_eq!(served(), Some(1));
    redis.restart();
    redis.cli(&["set", "wxtoken:a0", &document.to_string(), "ex", "3000"]);
    eventually("Redis is reached", || served().unwrap() > 200);
}

// Failover

#[needs(redis)]
#[test]
fn an_older_document_restored_by_a_failover_does_not_replace_a_known_newer_one() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.run(&["fetch"]).exits(0);
    let older = redis.cli(&["get", "wxtoken:a0"]);
    thread::sleep(Duration::from_millis(1100)); // created_at has a resolution of a second.
    home.run(&["fetch", "--force", "a0"]).exits(0);
    let newer = redis.token("wxtoken:a0").unwrap();
    let server = home.serve(&[]);
    redis.cli(&["set", "wxtoken:a0", &older, "ex", "7200"]);
    assert_eq!(get_token(&home), newer);
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert_eq!(server.get("/token").json()["access_token"].as_str(), Some(&*newer));
    }
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!((redis.token("wxtoken:a0"), wechat.mints()), (Some(newer), 2));
}

// `[redis] also`: keys for SDKs

#[needs(redis)]
#[test]
fn also_keys_have_the_bare_token_for_as_long_as_it_lives() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let also = "also = [
        { key = \"wechatpy:{appid}_access_token\", format = \"json-string\" },
        { key = \"wx:access_token:{appid}:{account}\", format = \"text\" },
    ]";
    let home = host_on("classic", &wechat, &redis.url(), also);
    home.run(&["fetch"]).exits(0).silent();
    for _ in 0..2 {
        let token = redis.token("wxtoken:a0").unwrap();
        assert_eq!(redis.cli(&["get", "wechatpy:wx0_access_token"]), format!("\"{token}\""));
        assert_eq!(redis.cli(&["get", "wx:access_token:wx0:a0"]), token);
        for key in ["wechatpy:wx0_access_token", "wx:access_token:wx0:a0"] {
            assert!((7100.0..=7200.0).contains(&seconds_to_live(&redis, key)), "{key}");
        }
        home.run(&["fetch", "--force", "a0"]).exits(0).silent();
    }
    // During a replacement the keys live no longer than the old token certainly does.
    let fetch = WaitingFetch::start(&home, &wechat, &redis);
    assert!(seconds_to_live(&redis, "wx:access_token:wx0:a0") <= 300.0);
    assert!(fetch.finish().status.success());
    assert!(seconds_to_live(&redis, "wx:access_token:wx0:a0") > 7100.0);
    // SDKs delete the key when WeChat rejects the token, or overwrite it.
    let token = redis.token("wxtoken:a0").unwrap();
    redis.cli(&["del", "wechatpy:wx0_access_token"]);
    redis.cli(&["set", "wx:access_token:wx0:a0", "T_OF_SDK"]);
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(redis.cli(&["get", "wechatpy:wx0_access_token"]), format!("\"{token}\""));
    assert_eq!(redis.cli(&["get", "wx:access_token:wx0:a0"]), token);
    assert!((7100.0..=7200.0).contains(&seconds_to_live(&redis, "wx:access_token:wx0:a0")));
    redis.cli(&["del", "wechatpy:wx0_access_token"]);
    let server = home.serve(&["--refresh"]);
    eventually("serve restores the key, too", || {
        redis.cli(&["get", "wechatpy:wx0_access_token"]) == format!("\"{token}\"")
    });
    server.stop();
}

#[needs(redis)]
#[test]
fn also_keys_never_get_the_token_of_another_account() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let also = "also = [{ key = \"wx:{appid}\", format = \"text\" }]";
    let home = host_on("classic", &wechat, &redis.url(), also);
    home.run(&["fetch"]).exits(0).silent();
    let foreign = redis.cli(&["get", "wxtoken:a0"]).replace("\"wx0\"", "\"wx9\"");
    redis.cli(&["set", "wxtoken:a0", &foreign]);
    redis.cli(&["del", "wx:wx0"]);
    let server = home.serve_with_log(&["--refresh", "-vv"]);
    eventually("the foreign document is reported", || home.has_logged("belongs to wx9"));
    eventually("the keys have been checked", || home.has_logged("what stands elsewhere"));
    drop(server);
    assert_eq!(redis.cli(&["exists", "wx:wx0"]), "0");
}

// check

#[needs(redis)]
#[test]
fn check_reports_whether_redis_is_writable_and_who_holds_the_lock() {
    let mut redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host_on("stable", &wechat, &redis.url(), "");
    home.run(&["fetch"]).exits(0);
    redis.cli(&["set", "wxtoken:a0:lock", "process 7 on db/0123", "px", "60000"]);
    let ran = home.run(&["check"]);
    for part in ["can be published: Redis answers, and can be written", "held by process 7 on db"] {
        assert!(ran.stdout.contains(part), "{part}: {} {}", ran.stdout, ran.stderr);
    }
    assert_eq!(redis.cli(&["get", "wxtoken:a0:lock"]), "process 7 on db/0123");
    redis.kill();
    let ran = home.run(&["check"]).exits(1);
    assert!(ran.stdout.contains(": cannot reach redis://"), "{}", ran.stdout);
}

#[needs(redis)]
#[test]
fn a_document_from_a_clock_ahead_is_replaced_also_in_copies() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let [one, other] = [(); 2].map(|()| host(&wechat, &redis));
    one.run(&["fetch"]).exits(0);
    let mut document: serde_json::Value =
        serde_json::from_str(&redis.cli(&["get", "wxtoken:a0"])).unwrap();
    let token = document["access_token"].as_str().unwrap().to_owned();
    document["created_at"] = format!("{}Z", &time_ago(-30)[..19]).into();
    redis.cli(&["set", "wxtoken:a0", &document.to_string(), "ex", "7200"]);
    assert_eq!(get_token(&other), token);
    one.run(&["fetch", "--force", "a0"]).exits(0).silent();
    let next = redis.token("wxtoken:a0").unwrap();
    assert_ne!(next, token);
    assert_eq!([get_token(&one), get_token(&other)], [&*next, &*next]);
    other.run(&["fetch"]).exits(0).silent();
    assert_eq!((redis.token("wxtoken:a0"), wechat.mints()), (Some(next), 2));
}

#[needs(redis)]
#[test]
fn a_document_shortened_before_a_failed_call_is_restored() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let also = "also = [{ key = \"wx:{appid}\", format = \"text\" }]";
    let home = host_on("classic", &wechat, &redis.url(), also);
    home.run(&["fetch"]).exits(0);
    let before = redis.cli(&["get", "wxtoken:a0"]);
    wechat.fault("errcode:40164");
    let fetch = WaitingFetch::start(&home, &wechat, &redis);
    assert_ne!(redis.cli(&["get", "wxtoken:a0"]), before, "it is shortened");
    assert_eq!(fetch.finish().status.code(), Some(4));
    assert_eq!(redis.cli(&["get", "wxtoken:a0"]), before);
    assert_eq!(fs::read_to_string(home.document_path("a0")).unwrap().trim_end(), before);
    for key in ["wxtoken:a0", "wx:wx0"] {
        assert!(seconds_to_live(&redis, key) > 7100.0, "{key}");
    }
}
