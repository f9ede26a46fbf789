//! Two hosts with one account that share nothing, neither Redis nor a lock. On the stable API WeChat gives both the same token.

use crate::support::*;

#[test]
fn two_hosts_on_stable_publish_the_same_token_and_neither_revokes_it() {
    let wechat = WeChat::with(&["--fault", "slow:1"]);
    let hosts = [Sandbox::new(&wechat), Sandbox::new(&wechat)];
    let fetches = hosts.each_ref().map(|host| host.command(&["fetch"]).spawn().unwrap());
    for mut fetch in fetches {
        assert!(fetch.wait().unwrap().success());
    }
    let token = hosts[0].token();
    assert_eq!(hosts[1].token(), token);
    assert_eq!((wechat.asked(), wechat.mints()), (2, 1));
    // When the token is due at one host only, its call does not change the other's token.
    hosts[0].publish(&token, 7200, 7000);
    hosts[0].run(&["fetch"]).exits(0).silent();
    assert_eq!([hosts[0].token(), hosts[1].token()], [&*token, &*token]);
    assert_eq!((wechat.asked(), wechat.mints()), (3, 1));
    assert!(wechat.is_alive(&token));
}

/// Why on classic one host has to fetch for both.
#[test]
fn two_hosts_on_classic_revoke_each_others_tokens() {
    let wechat = WeChat::with(&["--overlap", "0s"]);
    let hosts = [(); 2].map(|()| Sandbox::new(&wechat).on("classic"));
    for host in &hosts {
        host.run(&["fetch"]).exits(0);
    }
    let are_alive = hosts.each_ref().map(|host| wechat.is_alive(&host.token()));
    assert_eq!((are_alive, wechat.mints()), ([false, true], 2));
}

#[test]
fn two_hosts_on_stable_replace_a_rejected_token_by_one_mint() {
    let wechat = WeChat::start();
    let hosts = [Sandbox::new(&wechat), Sandbox::new(&wechat)];
    let servers = hosts.each_ref().map(|host| host.serve_refreshing(&[]));
    let served_tokens = || {
        servers.each_ref().map(|server| {
            let answer = server.get("/token");
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()["access_token"].as_str().unwrap().to_owned()
        })
    };
    let [token, same] = served_tokens();
    assert_eq!(same, token);
    wechat.kill_tokens();
    for server in &servers {
        assert_eq!(server.report_rejected(&token).status, 200);
    }
    let [next, same] = served_tokens();
    assert_eq!(same, next);
    assert_ne!(next, token);
    assert!(wechat.is_alive(&next));
    assert_eq!(wechat.mints(), 2, "the second host got the token that the first had minted");
    assert!(wechat.calls()["forced"].as_u64() <= Some(1), "{}", wechat.calls());
}
