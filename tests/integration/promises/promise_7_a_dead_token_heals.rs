//! Promise 7: who was refused with a token can say so; if it is still the current one, it is replaced once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::*;

/// `fetch --rejected -`, with the token on stdin.
fn fetch_rejected(sandbox: &Sandbox, token: &str) -> Run {
    let mut command = sandbox.command(&["fetch", "--rejected", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
    Run::from_output(child.wait_with_output().unwrap())
}

#[test]
fn a_dead_token_is_replaced_by_one_that_lives() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let dead = sandbox.token();
        wechat.kill_tokens();
        fetch_rejected(&sandbox, &dead).exits(0).silent();
        assert_ne!(sandbox.token(), dead, "{api}");
        assert!(wechat.is_alive(&sandbox.token()), "{api}");

        let (healed, mints) = (sandbox.token(), wechat.mints());
        fetch_rejected(&sandbox, &dead).exits(0).silent();
        assert_eq!(
            (sandbox.token(), wechat.mints()),
            (healed, mints),
            "{api}: it was replaced already"
        );
    }
}

/// Somebody else forced a refresh at WeChat: their token is taken over, and not killed in turn.
#[test]
fn a_token_that_was_replaced_elsewhere_costs_no_forced_refresh() {
    let wechat = WeChat::start();
    let ours = Sandbox::new(&wechat);
    let theirs = Sandbox::new(&wechat);
    ours.run(&["fetch"]).exits(0);
    theirs.run(&["fetch", "--force"]).exits(0);
    let before = wechat.mints();
    fetch_rejected(&ours, &ours.token()).exits(0).silent();
    assert_eq!(ours.token(), theirs.token());
    assert_eq!(wechat.mints(), before);
}

#[test]
fn a_forced_answer_that_is_the_old_token_again_is_reported_as_such() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    sandbox.run(&["fetch", "--force"]).exits(0);
    // Within 30 s of the last forced refresh WeChat does not do another, and does not say so.
    let ran = fetch_rejected(&sandbox, &sandbox.token()).exits(5);
    ran.says(&["the same token again", "30 s", "每天最多 20 次"]);
}

/// WeCom's begin with any of the characters that are in them.
#[test]
fn a_token_may_begin_with_a_dash_and_a_flag_is_not_taken_for_one() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for token in ["-I_0", "-", "--force"] {
        sandbox.publish(token, 7200, 0);
        fetch_rejected(&sandbox, token).exits(0).silent();
        assert_ne!(sandbox.token(), token);
    }
    sandbox.publish("-I_0", 7200, 0);
    sandbox.run(&["fetch", "--rejected", "-I_0"]).exits(0).silent();
    assert_ne!(sandbox.token(), "-I_0");
    let ran = sandbox.run(&["fetch", "--rejected", "--force"]).exits(2);
    ran.says(&["followed by a flag", "--rejected -"]);
}

#[test]
fn what_is_no_token_is_refused_without_being_repeated() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for wrong in ["", "two words", &"x".repeat(3000)] {
        let ran = fetch_rejected(&sandbox, wrong).exits(2);
        assert!(wrong.is_empty() || !ran.stderr.contains(wrong));
    }
    sandbox.run(&["fetch", "--rejected", "T", "--force"]).exits(2);
    let both = ["fetch", "--rejected", "-", "--secret-file", "-", "--appid", APPID];
    let mut command = wxtoken();
    command.args(both);
    Run::new(command).exits(2).says(&["stdin"]);
    assert_eq!(wechat.asked(), 0);
}

/// The token of a good answer.
#[track_caller]
fn token_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["access_token"].as_str().expect("a token").to_owned()
}

/// So many clients say at once that WeChat rejected this token; what each is answered.
fn told_at_once(server: &Server, clients: usize, token: impl Fn(usize) -> String) -> Vec<Response> {
    let mut streams: Vec<TcpStream> = (0..clients).map(|_| connect(server.address())).collect();
    for (nth, stream) in streams.iter_mut().enumerate() {
        stream.write_all(post_request("/token", &rejected(&token(nth))).as_bytes()).unwrap();
    }
    let answer = |mut stream: TcpStream| {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        Response::parse(&answer)
    };
    streams.into_iter().map(answer).collect()
}

#[test]
fn two_hundred_who_were_refused_with_a_token_cost_one_probe_and_one_mint() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&[]);
        let dead = token_of(&server.get("/token"));
        wechat.kill_tokens();
        let (mints, probes) = (wechat.mints(), wechat.probes());
        let mut tokens: Vec<String> =
            told_at_once(&server, 200, |_| dead.clone()).iter().map(token_of).collect();
        tokens.dedup();
        assert_eq!(tokens, [sandbox.token()], "{api}");
        assert_ne!(tokens[0], dead);
        assert_eq!((wechat.mints(), wechat.probes()), (mints + 1, probes + 1), "{api}");
        assert!(wechat.is_alive(&tokens[0]));

        // Whoever is late, or held the one before, gets the new one, and nothing is asked.
        let (asked, probes) = (wechat.asked(), wechat.probes());
        assert_eq!(token_of(&server.report_rejected(&dead)), tokens[0]);
        assert_eq!((wechat.asked(), wechat.probes()), (asked, probes), "{api}");
        assert!(server.stop().contains("who asks beside us?"));
    }
}

#[test]
fn tokens_that_are_not_the_current_one_are_nothing_to_ask_wechat_about() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let token = token_of(&server.get("/token"));
    for response in told_at_once(&server, 200, |nth| format!("T{nth}")) {
        assert_eq!(token_of(&response), token);
    }
    assert_eq!((wechat.asked(), wechat.probes()), (1, 0));
}

/// A hundred times a second, for a while; with as many other tokens in between.
#[test]
fn clients_who_lie_about_a_live_token_burn_none_and_cost_three_probes() {
    for api in ["stable", "classic"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&[]);
        let token = token_of(&server.get("/token"));
        let begun = Instant::now();
        for nth in 0..250 {
            assert_eq!(token_of(&server.report_rejected(&token)), token);
            assert_eq!(token_of(&server.report_rejected(&format!("T{nth}"))), token);
            std::thread::sleep((begun + Duration::from_millis(10 * nth)) - Instant::now());
        }
        // One more each 30 seconds.
        let most = 3 + begun.elapsed().as_secs() / 30;
        assert_eq!(wechat.mints(), 1, "{api}");
        assert!((2..=most).contains(&wechat.probes()), "{api}: {}", wechat.probes());
        assert!(wechat.is_alive(&token));
    }
}

#[test]
fn a_word_is_believed_where_wechat_cannot_be_asked_and_twice_in_a_row_it_is_not() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&[]);
    let first = token_of(&server.get("/token"));
    // Whoever has put the host on the allowlist for one call only, say.
    wechat.fault("errcode:40164@1");
    let second = token_of(&server.report_rejected(&first));
    assert_ne!(second, first);
    assert_eq!(wechat.mints(), 2);

    wechat.fault("errcode:40164@1");
    let response = server.report_rejected(&second);
    assert_eq!(response.status, 503, "{response:?}");
    let message = response.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("30 seconds") && message.contains("30 秒"), "{message}");
    let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    assert_eq!(wechat.mints(), 2);
    assert_eq!(token_of(&server.get("/token")), second, "nobody knows that it is dead");
}

/// On stable the good token can be asked for without forcing another.
#[test]
fn tokens_that_are_killed_one_after_the_other_are_replaced_at_once_where_that_costs_nothing() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let mut token = token_of(&server.get("/token"));
    for _ in 0..3 {
        wechat.kill_tokens();
        let healed = token_of(&server.report_rejected(&token));
        assert_ne!(healed, token);
        token = healed;
    }
    assert_eq!((wechat.mints(), &wechat.calls()["forced"]), (4, &0.into()));
}

/// The stranger comes again at once. WeChat is made to replace a token once in 30 s, and so long there is none.
#[test]
fn a_token_that_is_known_to_be_dead_is_nobodys_and_replaced_as_soon_as_may_be() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&["-v"]);
    let first = token_of(&server.get("/token"));
    wechat.kill_tokens();
    let replaced_at = Instant::now();
    let second = token_of(&server.report_rejected(&first));
    wechat.kill_tokens();
    let asked = wechat.asked();
    let response = server.report_rejected(&second);
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.json()["message"].as_str().unwrap().contains("30 seconds"));
    for _ in 0..50 {
        if replaced_at.elapsed() > Duration::from_secs(20) {
            break;
        }
        for path in ["/token", "/readyz"] {
            let response = server.get(path);
            assert_eq!(response.status, 503, "{path}: {response:?}");
            let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=30).contains(&seconds), "{seconds}");
        }
        let query = format!("grant_type=client_credential&appid={APPID}&secret=x");
        assert_eq!(server.get(&format!("/cgi-bin/token?{query}")).json()["errcode"], -1);
        assert_eq!(server.report_rejected(&second).status, 503);
    }
    assert!(wechat.asked() <= asked + 1, "it costs WeChat nothing");
    assert_eq!(sandbox.token(), second, "the document is as it was: it is not ours to say");

    // Nobody has to ask for it.
    std::thread::sleep((replaced_at + Duration::from_secs(20)) - Instant::now());
    eventually("it is replaced", || sandbox.token() != second);
    assert!(replaced_at.elapsed() >= Duration::from_secs(29), "{:?}", replaced_at.elapsed());
    assert!(wechat.is_alive(&token_of(&server.get("/token"))));
    assert_eq!(wechat.mints(), 3);
    let stderr = server.stop();
    for token in [first, second, sandbox.token()] {
        assert!(!stderr.contains(&token), "a token is in no log");
    }
}

#[test]
fn a_rejection_while_wechat_is_down_is_answered_with_the_reason() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let dead = token_of(&server.get("/token"));
    wechat.kill_tokens();
    wechat.fault("errcode:45009");
    let response = server.report_rejected(&dead);
    assert_eq!(response.status, 503);
    assert!(response.body.contains("45009") && response.body.contains("调用次数"), "{response:?}");
    assert_eq!(
        token_of(&server.get("/token")),
        dead,
        "nobody has said that it is dead but one client"
    );
    wechat.fault("none");
    server.signal("HUP");
    // A signal may come later than what is said after it.
    eventually("it is asked for again", || {
        let response = server.report_rejected(&dead);
        response.status == 200 && token_of(&response) != dead
    });
}
