//! Connections to Redis: with user and password, over TLS, through sentinels, over a unix socket; and the errors of failed ones.

use std::io::{Read, Write};

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::redis::{Redis, Sentinel, free_port};
use crate::support::tls::Authority;
use crate::support::*;

const PASSWORD: &str = "hunter2-and-some-more";

/// The ACL that the manual gives.
const ACL: [&str; 16] = [
    "~wxtoken:*",
    "&wxtoken:*",
    "+get",
    "+getrange",
    "+set",
    "+setrange",
    "+del",
    "+eval",
    "+publish",
    "+subscribe",
    "+ping",
    "+role",
    "+wait",
    "+select",
    "on",
    ">hunter2-and-some-more",
];

fn wechat() -> WeChat {
    wechat_with_accounts(1, &[])
}

/// Returns a host whose account `a0` is at `url`, with `more` in `[redis]`.
fn host(wechat: &WeChat, url: &str, more: &str) -> Home {
    Home::on_redis("classic", &wechat.url(), url, &format!("timeout = \"10s\"\n{more}"))
}

/// Writes the password file.
fn write_password(home: &Home, password: &str, mode: u32) {
    write_with_mode(&home.path("redis.password"), &format!("{password}\n"), mode);
}

#[needs(redis)]
#[test]
fn the_acl_of_the_manual_is_sufficient() {
    let redis = Redis::start();
    let wechat = wechat();
    redis.cli(&[&["acl", "setuser", "wx"], &ACL[..]].concat());
    redis.cli(&["acl", "setuser", "default", "off"]);
    let settings = "user = \"wx\"\npassword_file = \"redis.password\"";
    let home = host(&wechat, &format!("{}/2", redis.url()), settings);
    write_password(&home, PASSWORD, 0o600);
    home.run(&["fetch", "-v"]).exits(0);
    home.run(&["get", "a0"]).exits(0);
    let server = home.serve_with_log(&["--refresh"]);
    let first = server.get("/token").json();
    home.run(&["fetch", "--force", "a0"]).exits(0).silent();
    eventually("the new token is served", || server.get("/token").json() != first);
    assert_eq!(wechat.mints(), 2);
    assert!(!home.has_logged("hunter2"));
}

#[needs(redis)]
#[test]
fn a_failed_login_is_an_error_with_a_remedy_and_without_the_password() {
    let redis = Redis::start();
    let wechat = wechat();
    redis.cli(&["acl", "setuser", "reader", "on", ">hunter2", "~wxtoken:*", "+getrange"]);
    redis.cli(&["acl", "setuser", "default", "resetpass", ">hunter2"]);
    let with = |settings: &str| host(&wechat, &redis.url(), settings);
    let file = "password_file = \"redis.password\"";
    let user = "user = \"reader\"\npassword_file = \"redis.password\"";

    let fails_with = |home: &Home, parts: &[&str]| {
        let ran = home.run(&["fetch"]).exits(1).says(parts);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    };
    fails_with(&with(""), &["NOAUTH", "it wants a password"]);
    fails_with(&with(file), &["cannot read password file", "redis.password", "No such file"]);
    let home = with(file);
    write_password(&home, "hunter3", 0o600);
    fails_with(&home, &["it refuses user or password"]);
    write_password(&home, "hunter2", 0o644);
    fails_with(&home, &["it is open to others: mode 0644"]);
    let home = with(user);
    write_password(&home, "hunter2", 0o600);
    fails_with(&home, &["Allow +eval"]);
    assert_eq!(wechat.asked(), 0);
    home.run(&["get", "a0"])
        .exits(3)
        .says(&["a0: Run ", ": no token: wxtoken:a0 at redis://127.0.0.1"]);
}

#[needs(redis)]
#[test]
fn a_redis_that_cannot_be_written_is_noticed_before_the_call_to_wechat() {
    let redis = Redis::start();
    let wechat = wechat();
    let home = host(&wechat, &redis.url(), "");
    let fails_with = |part: &str| {
        home.run(&["fetch"]).exits(1).says(&[part]);
        assert_eq!(wechat.asked(), 0);
    };
    redis.cli(&["config", "set", "maxmemory", "1mb"]);
    fails_with("OOM: it has no memory left");
    redis.cli(&["config", "set", "maxmemory", "0"]);
    redis.cli(&["replicaof", "127.0.0.1", "1"]);
    redis.cli(&["config", "set", "replica-serve-stale-data", "yes"]);
    fails_with("it is a replica, which cannot be written");
    redis.cli(&["replicaof", "no", "one"]);
    redis.cli(&["lpush", "wxtoken:a0", "x"]);
    fails_with("WRONGTYPE: a key of ours holds something else");
    redis.cli(&["del", "wxtoken:a0"]);
    home.run(&["fetch"]).exits(0).silent();
}

#[needs(redis)]
#[test]
fn a_command_that_is_refused_or_missing_is_named_with_what_to_do() {
    let wechat = wechat();
    let redis = Redis::start();
    let settings = "user = \"wx\"\npassword_file = \"redis.password\"";
    let home = host(&wechat, &redis.url(), settings);
    write_password(&home, PASSWORD, 0o600);
    for command in ["get", "getrange", "set", "setrange", "del", "eval", "publish", "subscribe"] {
        redis.cli(&[&["acl", "setuser", "wx", "reset"], &ACL[..]].concat());
        redis.cli(&["acl", "setuser", "wx", &format!("-{command}")]);
        let expected = format!("Allow +{command}: wxtoken:a0 at ");
        home.run(&["check", "a0"]).prints(&[&expected]);
        let ran = home.run(&["fetch", "--force", "a0"]);
        // Without DEL it stays until it expires.
        redis.cli(&["del", "wxtoken:a0:lock"]);
        if !ran.stderr.is_empty() {
            ran.mentions(&["its user may not", &format!("+{command}")]);
        }
    }
    redis.cli(&[&["acl", "setuser", "wx", "reset"], &ACL[..]].concat());
    redis.cli(&["acl", "setuser", "wx", "resetchannels"]);
    // What is published reaches other hosts all the same, a little later.
    home.run(&["fetch", "--force", "a0"]).exits(0).silent();
    let expected = "Allow &wxtoken:*, or that prefix: wxtoken:a0 at ";
    let ran = home.run(&["check", "a0"]).exits(0);
    ran.prints(&[expected, "other hosts are not told at once"]);
    redis.cli(&["acl", "setuser", "wx", "&wxtoken:*"]);
    let far = host(&wechat, &format!("{}/99", redis.url()), settings);
    write_password(&far, PASSWORD, 0o600);
    far.run(&["fetch"]).exits(1).says(&["it has no database of this number"]);
    home.run(&["check", "a0"]).exits(0);

    for (command, expected) in [
        ("EVAL", "it has no EVAL"),
        ("GETRANGE", "it has no GETRANGE"),
        ("SETRANGE", "Use a Redis of version 3 or newer without rename-command"),
    ] {
        let redis = Redis::with_flags(&["--rename-command", command, ""]);
        let home = host(&wechat, &redis.url(), "");
        home.run(&["fetch"]).exits(1).says(&[expected]);
        home.run(&["check", "a0"])
            .prints(&["Use a Redis of version 3", &format!("it has no {command}")]);
    }
}

#[needs(redis)]
#[test]
fn over_tls_the_certificate_is_verified() {
    let ca = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let identity = ca.sign();
    let [cert, key, root] = ["cert.pem", "key.pem", "ca.pem"].map(|name| dir.path().join(name));
    write_with_mode(&cert, &identity.cert, 0o644);
    write_with_mode(&key, &identity.key, 0o600);
    write_with_mode(&root, &ca.pem, 0o644);
    let port = free_port();
    let path = |path: &std::path::Path| path.display().to_string();
    let flags = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path(&cert),
        "--tls-key-file",
        &path(&key),
        "--tls-ca-cert-file",
        &path(&root),
        "--tls-auth-clients",
        "no",
    ];
    let redis = Redis::with_flags(&flags);
    let wechat = wechat();
    for name in ["localhost", "127.0.0.1"] {
        let home = host(
            &wechat,
            &format!("rediss://{name}:{port}"),
            &format!("ca_file = \"{}\"", path(&root)),
        );
        home.run(&["fetch"]).exits(0).silent();
        home.run(&["get", "a0"]).exits(0);
    }
    assert!(redis.token("wxtoken:a0").is_some());
    let asked = wechat.asked();
    // A certificate of an unknown authority, a server without TLS, and a CA file without certificates.
    host(&wechat, &format!("rediss://localhost:{port}"), "")
        .run(&["fetch"])
        .exits(1)
        .says(&["certificate", "UnknownIssuer"]);
    let home = host(&wechat, &format!("rediss://localhost:{port}"), "");
    let mut fetch = home.command(&["fetch"]);
    Run::new({
        fetch.env("SSL_CERT_FILE", &root);
        fetch
    })
    .exits(0)
    .silent();
    let plain = redis.url().replace("redis://", "rediss://");
    let home = host(&wechat, &plain, &format!("ca_file = \"{}\"", path(&root)));
    home.run(&["fetch"]).exits(1).says(&["cannot reach rediss://127.0.0.1"]);
    let home = host(&wechat, &format!("rediss://localhost:{port}"), "ca_file = \"empty.pem\"");
    write_with_mode(&home.path("empty.pem"), "", 0o644);
    home.run(&["fetch"]).exits(1).says(&["there is no certificate in ca_file", "empty.pem"]);
    assert_eq!(wechat.asked(), asked);
}

#[needs(redis)]
#[test]
fn fetch_and_serve_work_over_a_unix_socket() {
    let redis = Redis::start();
    let wechat = wechat();
    let home =
        host(&wechat, &format!("redis+unix://{}", redis.socket().display()), "prefix = \"a:b\"");
    home.run(&["fetch"]).exits(0).silent();
    assert!(redis.token("a:b:a0").is_some());
    let server = home.serve(&[]);
    assert_eq!(server.get("/token").status, 200);
}

#[needs(redis)]
#[test]
fn after_a_failover_sentinels_lead_to_the_new_primary_which_has_the_token() {
    let mut primary = Redis::start();
    let replica = Redis::start();
    replica.cli(&["replicaof", "127.0.0.1", &primary.port().to_string()]);
    eventually("the replica is in sync", || {
        primary.cli(&["info", "replication"]).contains("state=online")
    });
    let sentinel = Sentinel::new(&primary);
    eventually("the sentinel knows both", || {
        sentinel.cli(&["sentinel", "replicas", "main"]).contains(&replica.port().to_string())
    });
    let wechat = wechat();
    let (_reserved, unused) = refusing_address();
    let url = format!("redis+sentinel://{unused},127.0.0.1:{}/main", sentinel.port());
    let [home, other] = [(); 2].map(|()| host(&wechat, &url, ""));
    home.run(&["fetch"]).exits(0).silent();
    let token = primary.token("wxtoken:a0");
    assert_eq!(replica.token("wxtoken:a0"), token, "fetch waits for the replica");
    let server = other.serve(&["--refresh"]);
    primary.kill();
    eventually("the replica is promoted", || replica.cli(&["role"]).starts_with("master"));
    eventually("fetch can write again", || home.run(&["fetch", "--force", "a0"]).stderr.is_empty());
    let next = replica.token("wxtoken:a0");
    assert_ne!(next, token);
    eventually("the new token is served", || {
        server.get("/token").json()["access_token"].as_str() == next.as_deref()
    });
    assert_eq!(wechat.mints(), 2);
    host(&wechat, &url.replace("/main", "/other"), "")
        .run(&["fetch"])
        .exits(1)
        .says(&["knows no master other"]);
}

#[test]
fn an_unreachable_redis_delays_fetch_by_no_more_than_its_timeout() {
    let wechat = wechat();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for (url, expected) in [
        (format!("redis://127.0.0.1:{port}"), "no answer within 1s"),
        (format!("rediss://localhost:{port}"), "no answer within 1s"),
        (format!("redis+sentinel://127.0.0.1:{port}/main"), "no answer within 1s"),
        ("redis://nowhere.invalid".to_owned(), "cannot reach redis://nowhere.invalid:6379"),
    ] {
        let home = Home::on_redis("classic", &wechat.url(), &url, "timeout = \"1s\"");
        home.run(&["fetch"]).exits(1).says(&[expected]);
    }
    assert_eq!(wechat.asked(), 0);
}

/// Answers each question with these bytes, as a sentinel that is asked for the master's address.
fn sentinel_that_answers(answer: &'static str) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    port
}

#[test]
fn a_master_that_cannot_be_reached_is_named_as_the_sentinel_names_it() {
    let wechat = wechat();
    for (answer, expected) in [
        ("*2\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n", "the master that the sentinel names, 127.0.0.1:1"),
        ("*2\r\n$9\r\n127.0.0.1\r\n$8\r\n99999999\r\n", "its answer is none"),
        ("$2\r\nno\r\n", "its answer is none"),
        ("*-1\r\n", "knows no master main"),
    ] {
        let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel_that_answers(answer));
        let home = Home::on_redis("classic", &wechat.url(), &url, "");
        home.run(&["fetch"]).exits(1).says(&[expected]);
    }
    assert_eq!(wechat.asked(), 0);
}
