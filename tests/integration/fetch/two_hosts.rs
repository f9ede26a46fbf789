//! Two hosts on the stable API, each on its own: no Redis, no lock, no word between them. WeChat gives both the same
//! token, so they agree.

use crate::support::*;

#[test]
fn two_hosts_on_stable_hold_the_same_token_and_neither_kills_the_others() {
    let wechat = WeChat::with(&["--fault", "slow:1"]);
    let hosts = [Sandbox::against(&wechat), Sandbox::against(&wechat)];
    let fetches = hosts.each_ref().map(|host| host.command(&["fetch"]).spawn().unwrap());
    for mut fetch in fetches {
        assert!(fetch.wait().unwrap().success());
    }
    let token = hosts[0].token();
    assert_eq!(hosts[1].token(), token);
    assert_eq!((wechat.asked(), wechat.mints()), (2, 1));
    // On another day, when it is due at one of them: that one asks, and it is no news to the other.
    hosts[0].publish(&token, 7200, 7000);
    hosts[0].run(&["fetch"]).exits(0).silent();
    assert_eq!([hosts[0].token(), hosts[1].token()], [&*token, &*token]);
    assert_eq!((wechat.asked(), wechat.mints()), (3, 1));
    assert!(wechat.is_alive(&token));
}

/// What would be so on classic, where one host has to ask for both.
#[test]
fn two_hosts_on_classic_kill_each_others_tokens() {
    let wechat = WeChat::with(&["--overlap", "0s"]);
    let hosts = [(); 2].map(|()| Sandbox::against(&wechat).on("classic"));
    for host in &hosts {
        host.run(&["fetch"]).exits(0);
    }
    let are_alive = hosts.each_ref().map(|host| wechat.is_alive(&host.token()));
    assert_eq!((are_alive, wechat.mints()), ([false, true], 2));
}

#[test]
fn a_token_that_died_is_replaced_once_by_two_hosts_on_stable() {
    let wechat = WeChat::start();
    let hosts = [Sandbox::against(&wechat), Sandbox::against(&wechat)];
    let servers = hosts.each_ref().map(|host| host.serve_refreshing(&[]));
    let handed_out = || {
        servers.each_ref().map(|server| {
            let answer = server.get("/token");
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()["access_token"].as_str().unwrap().to_owned()
        })
    };
    let [token, same] = handed_out();
    assert_eq!(same, token);
    wechat.kill_tokens();
    for server in &servers {
        assert_eq!(server.tell_rejected(&token).status, 200);
    }
    let [next, same] = handed_out();
    assert_eq!(same, next);
    assert_ne!(next, token);
    assert!(wechat.is_alive(&next));
    assert_eq!(wechat.mints(), 2, "the second host was given what the first had made");
    assert!(wechat.calls()["forced"].as_u64() <= Some(1), "{}", wechat.calls());
}
