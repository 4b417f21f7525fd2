//! Links and documents where servers are named.

use super::*;

const LINK: &str = "ss://aes-128-gcm:hidden-secret@192.0.2.1:8389#name";
const MEANT: &str = "192.0.2.1:8389 aes-128-gcm";

#[test]
fn a_link_is_taken_wherever_a_client_names_a_server() {
    let group = r#""groups": [{"name": "g", "members":"#;
    for (words, file) in [
        ("", format!(r#"{{"server": "{LINK}"}}"#)),
        ("", format!(r#"{{"server": ["{LINK}"], "remarks": "mine"}}"#)),
        ("", format!(r#"{{"servers": ["{LINK}"]}}"#)),
        ("", format!(r#"{{"servers": [{{"server": "{LINK}", "mode": "tcp_only"}}]}}"#)),
        (
            "",
            format!(r#"{{"servers": [{{"server": ["{LINK}"]}}, {{"disabled": true, "server": "{LINK}"}}]}}"#),
        ),
        ("", format!(r#"{{"outbound_proxy": "{LINK}"}}"#)),
        ("", format!(r#"{{"outbound_proxy": [{{"url": "{LINK}"}}]}}"#)),
        ("", format!(r#"{{"paths": [{{"name": "p", "hops": "{LINK}"}}], "otherwise": "p"}}"#)),
        ("", format!(r#"{{"paths": [{{"name": "p", "hops": ["{LINK}"]}}], "otherwise": "p"}}"#)),
        (
            "",
            format!(r#"{{"paths": [{{"name": "p", "hops": [{{"address": "{LINK}"}}]}}], "otherwise": "p"}}"#),
        ),
        ("", format!(r#"{{{group} ["{LINK}"]}}], "otherwise": "g"}}"#)),
        (
            "",
            format!(
                r#"{{{group} [{{"name": "{LINK}", "weight": 2}}], "policy": "weighted"}}], "otherwise": "g"}}"#
            ),
        ),
        (" -s LINK", String::new()),
        (" --server-url LINK", String::new()),
        (" --outbound-proxy LINK", String::new()),
    ] {
        let (config, _) = Outcome::good(&format!("umbra local{}", words.replace("LINK", LINK)), &file);
        assert_eq!(servers(&config), [MEANT], "{words} {file}");
    }
}

#[test]
fn a_link_that_looks_for_a_variable_is_taken_as_it_is_and_tells() {
    let group = r#""groups": [{"name": "g", "members":"#;
    for link in [
        "ss://aes-128-gcm:${PW_IN_LINK}@192.0.2.1:8389",
        "ss://YWVzLTEyOC1nY206JHtQV19JTl9MSU5LfQ@192.0.2.1:8389",
    ] {
        for (words, file) in [
            ("", format!(r#"{{"server": "{link}"}}"#)),
            ("", format!(r#"{{"server": ["{link}"]}}"#)),
            ("", format!(r#"{{"servers": ["{link}"]}}"#)),
            ("", format!(r#"{{"servers": [{{"server": "{link}"}}]}}"#)),
            ("", format!(r#"{{"outbound_proxy": "{link}"}}"#)),
            ("", format!(r#"{{"outbound_proxy": [{{"url": "{link}"}}]}}"#)),
            ("", format!(r#"{{"paths": [{{"name": "p", "hops": ["{link}"]}}], "otherwise": "p"}}"#)),
            ("", format!(r#"{{{group} ["{link}"]}}], "otherwise": "g"}}"#)),
            (" -s LINK", String::new()),
            (" --server-url LINK", String::new()),
        ] {
            let words = format!("umbra local{}", words.replace("LINK", link));
            let (config, warnings) = Outcome::good(&words, &file);
            assert_eq!(servers(&config), [MEANT], "{words} {file}");
            let told =
                warnings.iter().filter(|told| told.contains("the password in the link is taken as it is"));
            assert_eq!(told.count(), 1, "{words} {file}: {warnings:?}");
            assert!(!warnings.concat().contains("PW_IN_LINK"), "{warnings:?}");
        }
    }
    let (_, warnings) =
        Outcome::good("umbra local", r#"{"server": "ss://aes-128-gcm:x${PW_IN_LINK}@192.0.2.1:8389"}"#);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn a_host_that_is_a_variable_is_none_and_a_user_is_one_with_a_warning() {
    let hop = |hop: &str| format!(r#"{{"paths": [{{"name": "p", "hops": [{hop}]}}], "otherwise": "p"}}"#);
    for file in [
        r#"{"server": "${HOST}", "password": "long-enough"}"#.to_owned(),
        r#"{"server": "${HOST}:8388", "password": "long-enough"}"#.into(),
        r#"{"server": ["a.example", "${HOST}"], "password": "long-enough"}"#.into(),
        r#"{"servers": [{"server": "${HOST}.example", "password": "long-enough"}]}"#.into(),
        r#"{"server": "ss://aes-128-gcm:long-enough@${HOST}:1"}"#.into(),
        r#"{"server": "a.example", "password": "long-enough", "local_address": "${HOST}"}"#.into(),
        r#"{"outbound_proxy": "socks5://${HOST}:1080"}"#.into(),
        hop(r#""socks5://${HOST}""#),
        hop(r#""ss://aes-128-gcm:long-enough@${HOST}:1""#),
        hop(r#"{"protocol": "socks5", "address": "${HOST}:1080"}"#),
    ] {
        let errors = Outcome::bad("umbra local", &file);
        assert!(
            errors.iter().any(|error| error.contains("is no host: the environment is asked")),
            "{file}: {errors:?}"
        );
    }
    let told = "the name of the user is taken as it is";
    for file in [
        r#"{"outbound_proxy": "socks5://${USER}:long-enough@192.0.2.1"}"#.to_owned(),
        hop(r#""http://${USER}:long-enough@192.0.2.1""#),
        hop(r#""socks4://${USER}@192.0.2.1""#),
        hop(
            r#"{"protocol": "socks5", "address": "192.0.2.1", "user": "${USER}", "password": "long-enough"}"#,
        ),
        r#"{"direct": true, "users": [{"name": "${USER}", "password": "long-enough"}]}"#.into(),
    ] {
        let (_, warnings) = Outcome::good("umbra local", &file);
        assert!(warnings.len() == 1 && warnings[0].contains(told), "{file}: {warnings:?}");
    }
    let (_, warnings) = Outcome::good("umbra local", &hop(r#""socks5://x${USER}:long-enough@192.0.2.1""#));
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn a_server_listens_where_a_link_says() {
    for (words, file) in [
        ("", format!(r#"{{"server": "{LINK}"}}"#)),
        ("", format!(r#"{{"servers": ["{LINK}"]}}"#)),
        ("", format!(r#"{{"servers": [{{"server": "{LINK}"}}]}}"#)),
        (" -s LINK", String::new()),
    ] {
        let (config, _) = Outcome::good(&format!("umbra server{}", words.replace("LINK", LINK)), &file);
        assert_eq!(listens(&config), ["192.0.2.1:8389"], "{words} {file}");
        let Protocol::Shadowsocks(door) = &config.inbounds[0].protocol else { panic!("{file}") };
        assert_eq!(door.keys.method().name(), "aes-128-gcm");
    }
}

#[test]
fn links_and_addresses_stand_in_one_list() {
    let file = format!(
        r#"{{"server": ["{LINK}", "b.example", "c.example:9"], "server_port": 7, "password": "long-enough", "method": "aes-256-gcm"}}"#
    );
    let (config, _) = Outcome::good("umbra local", &file);
    let mut found = servers(&config);
    found.sort();
    assert_eq!(found, [MEANT, "b.example:7 aes-256-gcm", "c.example:9 aes-256-gcm"]);
}

#[test]
fn a_link_behind_a_flag_takes_the_place_of_all_servers_of_the_file() {
    for file in [
        r#"{"server": "a", "server_port": 1, "password": "long-enough", "plugin": "obfs-local"}"#,
        r#"{"servers": [{"server": "a", "password": "long-enough"}, {"server": "b", "password": "long-enough"}]}"#,
        r#"{"online_config": {"config_url": "https://a.example/x"}}"#,
        r#"{"server": "https://a.example/x"}"#,
    ] {
        for flag in ["-s", "--server-url"] {
            let outcome = outcome(&format!("umbra local {flag} {LINK}"), file);
            let plan = outcome.plan.unwrap_or_else(|| panic!("{flag} {file}: {:?}", outcome.errors));
            assert_eq!(servers(&plan.config), [MEANT], "{flag} {file}");
            assert!(plan.plugins().next().is_none(), "a link without a plugin has none");
            assert!(outcome.warnings.iter().any(|note| note.starts_with(&format!("{flag}: other users"))));
        }
    }
}

#[test]
fn a_link_is_written_as_it_was_wherever_it_stood() {
    let link = "ss://aes-128-gcm:hidden-secret@192.0.2.1:1/?plugin=obfs-local%3Bobfs%3Dhttp#my%20name";
    let written = |words: &str, file: &str| {
        let mut report = Report::default();
        let command =
            flags::parse(words.split(' ').map(Into::into)).map_err(|error| error.to_string()).unwrap();
        let flags::Command::Run(_, options) = command else { panic!("{words}") };
        let (mut file, mut flags) = (file::parse("x.json", file, &mut report).unwrap(), options.settings);
        find_linked(&mut file, &mut flags, &mut report);
        let urls = describe_servers(Sources { file, flags, ..Sources::default() }, None, &mut report);
        assert_eq!(report.errors, []);
        urls
    };
    let meant: ServerUrl = link.parse().unwrap();
    for (words, file) in [
        (format!("umbra local -s {link}"), "{}".to_owned()),
        ("umbra local".into(), format!(r#"{{"server": "{link}"}}"#)),
        ("umbra local".into(), format!(r#"{{"servers": [{{"server": "{link}"}}]}}"#)),
        ("umbra local".into(), format!(r#"{{"server": ["{link}", "{link}"]}}"#)),
    ] {
        assert!(written(&words, &file).iter().all(|url| *url == meant), "{words} {file}");
    }
}

#[test]
fn the_plugin_of_a_link_is_started_where_a_plugin_can_stand() {
    let link = "ss://aes-128-gcm:hidden-secret@192.0.2.1:1/?plugin=obfs-local%3Bobfs%3Dhttp";
    for (words, file) in [
        ("", format!(r#"{{"server": "{link}"}}"#)),
        ("", format!(r#"{{"servers": [{{"server": "{link}"}}]}}"#)),
        (" -s LINK", String::new()),
    ] {
        let outcome = outcome(&format!("umbra local{}", words.replace("LINK", link)), &file);
        assert_eq!(outcome.errors, Vec::<String>::new());
        assert_eq!(outcome.plan.unwrap().plugins().count(), 1, "{words} {file}");
    }
    for file in [
        format!(r#"{{"outbound_proxy": "{link}"}}"#),
        format!(r#"{{"groups": [{{"name": "g", "members": ["{link}"]}}], "otherwise": "g"}}"#),
    ] {
        let errors = Outcome::bad("umbra local", &file);
        assert!(errors[0].contains("write the server into servers[]"), "{errors:?}");
    }
    let strange = link.replace("obfs-local", "poweroff");
    for file in [
        format!(r#"{{"server": "{strange}"}}"#),
        format!(r#"{{"server": ["{strange}", "a"], "password": "long-enough"}}"#),
    ] {
        let errors = Outcome::bad("umbra local", &file);
        assert!(
            errors[0].contains("poweroff is not among the plugins that a link may ask for"),
            "{errors:?}"
        );
    }
}

#[test]
fn what_cannot_be_taken_names_the_remedy_and_not_the_secret() {
    let beside = "the link says it already; keep one of them";
    let is_document = "cannot stand beside a document";
    let document = "https://a.example/hidden/path";
    let group = r#""groups": [{"name": "g", "members":"#;
    for (words, file, place, complaint) in [
        ("", format!(r#"{{"server": "{LINK}", "password": "long-enough"}}"#), "password", beside),
        (
            "",
            format!(r#"{{"servers": [{{"server": ["{LINK}"], "server_port": 1}}]}}"#),
            "servers[0].server_port",
            beside,
        ),
        (" -s LINK -k long-enough", String::new(), "-k", beside),
        ("", r#"{"server": "ss://hidden@"}"#.into(), "server", "it looks like ss://"),
        (
            "",
            r#"{"server": ["a", "ss://hidden@"], "password": "long-enough"}"#.into(),
            "server[1]",
            "it looks like ss://",
        ),
        (" -s ss://hidden@", String::new(), "-s", "it looks like ss://"),
        ("", r#"{"server": "socks5://hidden@a:1"}"#.into(), "server", "neither a link"),
        ("", r#"{"servers": ["hidden"]}"#.into(), "servers[0]", "neither a link"),
        (" -s hidden/there", String::new(), "-s", "neither a link"),
        (
            "",
            format!(r#"{{"server": "{LINK}", "servers": [{{"server": "a", "password": "long-enough"}}]}}"#),
            "server",
            "cannot stand beside servers[]",
        ),
        ("", format!(r#"{{"server": "{document}", "password": "long-enough"}}"#), "password", is_document),
        (
            "",
            format!(r#"{{"servers": [{{"server": "{document}", "mode": "tcp_only"}}]}}"#),
            "servers[0].mode",
            is_document,
        ),
        (
            "",
            format!(r#"{{"servers": [{{"config_url": "{document}", "method": "none"}}]}}"#),
            "servers[0].method",
            is_document,
        ),
        (" -s DOCUMENT -m none", String::new(), "-m", is_document),
        (
            "",
            format!(r#"{{"servers": ["{document}", "{document}"]}}"#),
            "servers[1]",
            "names the same document as servers[0]",
        ),
        (
            "",
            format!(r#"{{"outbound_proxy": "{document}"}}"#),
            "outbound_proxy",
            "name the document in servers[]",
        ),
        (
            "",
            format!(r#"{{{group} ["{document}"]}}], "otherwise": "g"}}"#),
            "groups[0].members[0]",
            "name the document in servers[]",
        ),
        (
            "",
            r#"{"outbound_proxy": "file:/hidden"}"#.into(),
            "outbound_proxy",
            "name the document in servers[]",
        ),
        (
            "",
            format!(r#"{{{group} ["{LINK}", "{LINK}"]}}], "otherwise": "g"}}"#),
            "groups[0].members[1]",
            "it is in the group already",
        ),
        ("", format!(r#"{{"otherwise": "{LINK}"}}"#), "otherwise", "write it into hops of paths[]"),
        (
            "",
            format!(r#"{{"direct": true, "servers": ["{document}"]}}"#),
            "servers[0]",
            "cannot stand beside direct",
        ),
    ] {
        let words = words.replace("LINK", LINK).replace("DOCUMENT", document);
        let errors = Outcome::bad(&format!("umbra local{words}"), &file);
        let found = errors.iter().find(|error| error.starts_with(&format!("{place}: ")));
        assert!(found.is_some_and(|error| error.contains(complaint)), "{words} {file}: {errors:?}");
        assert!(!errors.concat().contains("hidden"), "{errors:?}");
    }
    for (words, file, place) in [
        (format!(" -s {document} -k long-enough"), String::new(), "-s"),
        (String::new(), format!(r#"{{"servers": ["{document}"]}}"#), "servers[0]"),
    ] {
        let errors = Outcome::bad(&format!("umbra server{words}"), &file);
        let complaint = format!("{place}: a document names the servers of a client");
        assert!(errors.iter().any(|error| error.starts_with(&complaint)), "{errors:?}");
    }
}

#[test]
fn a_document_is_taken_wherever_a_client_names_its_servers() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let entry = |host: &str| {
        format!(
            r#"{{"server": "{host}", "server_port": 1, "password": "long-enough", "method": "aes-128-gcm"}}"#
        )
    };
    let (one, two) = (path("one.json"), path("two.json"));
    std::fs::write(&one, format!(r#"{{"version": 1, "servers": [{}, {}]}}"#, entry("a"), entry("b")))
        .unwrap();
    std::fs::write(&two, format!(r#"{{"version": 1, "servers": [{}]}}"#, entry("c"))).unwrap();
    let from = |words: &str, file: &str| {
        let outcome = outcome(&format!("umbra local{words}"), file);
        let plan = outcome.plan.unwrap_or_else(|| panic!("{words} {file}: {:?}", outcome.errors));
        let mut found = servers(&plan.config);
        found.sort();
        let intervals = plan.online.iter().map(|online| online.subscription.interval.as_secs());
        (found, intervals.collect::<Vec<_>>())
    };
    let [a, b, c] = ["a:1 aes-128-gcm", "b:1 aes-128-gcm", "c:1 aes-128-gcm"];
    for (words, file) in [
        ("", format!(r#"{{"server": "{one}"}}"#)),
        ("", format!(r#"{{"server": ["file:{one}"]}}"#)),
        ("", format!(r#"{{"servers": ["{one}"]}}"#)),
        (
            "",
            format!(
                r#"{{"servers": [{{"server": "file://{one}"}}, {{"disabled": true, "config_url": "{two}"}}]}}"#
            ),
        ),
        ("", format!(r#"{{"servers": [{{"config_url": "{one}", "remarks": "mine"}}]}}"#)),
        ("", format!(r#"{{"online_config": {{"config_url": "{one}"}}}}"#)),
        (" -s ONE", format!(r#"{{"servers": ["{two}"], "online_config": {{"config_url": "{two}"}}}}"#)),
    ] {
        let words = words.replace("ONE", &one);
        assert_eq!(from(&words, &file), (vec![a.into(), b.into()], vec![3600]), "{words} {file}");
    }
    let file =
        format!(r#"{{"servers": [{{"config_url": "{one}", "update_interval": 60}}, "{two}", "{LINK}"]}}"#);
    assert_eq!(from("", &file), ([MEANT, a, b, c].map(String::from).into(), vec![60, 3600]));
    let file = format!(
        r#"{{"server": ["{LINK}", "{two}", "d"], "password": "long-enough", "method": "aes-128-gcm", "server_port": 1}}"#
    );
    assert_eq!(from("", &file), ([MEANT, c, "d:1 aes-128-gcm"].map(String::from).into(), vec![3600]));

    let many: Vec<_> = (0..17).map(|number| format!(r#""https://a.example/{number}""#)).collect();
    let errors = Outcome::bad("umbra local", &format!(r#"{{"servers": [{}]}}"#, many.join(",")));
    assert!(
        errors.iter().any(|error| error == "servers[16]: more than 16 documents; leave some out"),
        "{errors:?}"
    );
}

#[test]
fn a_document_that_fails_for_good_is_an_error_only_where_nothing_else_is_left() {
    let folder = tempfile::TempDir::new().unwrap();
    let good = folder.path().join("good.json");
    std::fs::write(&good, LINK).unwrap();
    let empty = folder.path().join("empty.json");
    std::fs::write(&empty, r#"{"version": 1, "servers": []}"#).unwrap();
    let [good, empty] = [&good, &empty].map(|path| path.to_str().unwrap());
    let judged = |list: &str| outcome("umbra local", &format!(r#"{{"servers": [{list}]}}"#));
    for others in [format!(r#""{good}""#), format!(r#""{LINK}""#)] {
        let outcome = judged(&format!(r#""{empty}", {others}"#));
        assert_eq!(servers(&outcome.plan.unwrap().config), [MEANT]);
        assert!(
            outcome.warnings[0]
                .ends_with("names no server that can be used; going on with the other servers")
        );
    }
    let outcome = judged(&format!(r#""{empty}""#));
    assert!(outcome.errors[0].starts_with("servers[0]: the document of servers at "), "{:?}", outcome.errors);
}
