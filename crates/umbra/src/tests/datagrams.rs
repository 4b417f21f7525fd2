//! What is said about datagrams, and what comes of it.

use umbra_relay::config::{Filtering, Mode, Udp};

use super::*;

const SINGLE: &str = r#""server": "192.0.2.1", "password": "long-enough""#;

fn udp(config: &Config) -> &Udp {
    config.inbounds[0].mode.datagrams().unwrap()
}

/// What the first inbound carries, and what each server is used for.
fn modes(words: &str, file: &str) -> (Mode<()>, Vec<Mode<String>>) {
    let (config, _) = Outcome::good(words, file);
    modes_of(&config, &[])
}

fn modes_of(config: &Config, listed: &[Listed]) -> (Mode<()>, Vec<Mode<String>>) {
    let servers = shadowsocks_hops(config);
    let servers = servers.iter().chain(listed.iter().map(|listed| &listed.server));
    let of_servers = servers.map(|server| server.mode.clone().map(|address| address.to_string()));
    (config.inbounds[0].mode.clone().map(drop), of_servers.collect())
}

#[test]
fn both_streams_and_datagrams_are_carried_unless_the_mode_says_otherwise() {
    let both = |address: &str| Mode::Both(address.to_owned());
    for (words, mode) in [("", "tcp_and_udp"), (" -u", "tcp_only"), (" --mode tcp_and_udp", "udp_only")] {
        let file = format!(r#"{{{SINGLE}, "mode": "{mode}"}}"#);
        for end in ["local", "server"] {
            let (door, servers) = modes(&format!("umbra {end}{words}"), &file);
            assert_eq!(door, Mode::Both(()), "{words} {mode}");
            assert!(servers.iter().all(|server| *server == both("192.0.2.1:8388")));
        }
    }
    let single = format!("{{{SINGLE}}}");
    assert_eq!(modes("umbra local", &single), (Mode::Both(()), vec![both("192.0.2.1:8388")]));
    assert_eq!(
        modes("umbra local -U", &single),
        (Mode::Datagrams(()), vec![Mode::Datagrams("192.0.2.1:8388".into())])
    );
    assert_eq!(modes("umbra local --mode tcp_only", &single), (Mode::Streams, vec![Mode::Streams]));
    assert_eq!(modes("umbra local --direct", ""), (Mode::Both(()), vec![]));
    let both_ends = r#"{"servers": [{"server": "a", "password": "long-enough", "mode": "tcp_only"}, {"server": "b", "password": "long-enough"}],
        "locals": [{"mode": "udp_only"}], "mode": "tcp_and_udp"}"#;
    assert_eq!(modes("umbra local", both_ends), (Mode::Datagrams(()), vec![Mode::Streams, both("b:8388")]));
    let tunnel = format!(r#"{{{SINGLE}, "mode": "udp_only"}}"#);
    assert_eq!(modes("umbra tunnel -f a:53", &tunnel).0, Mode::Datagrams(()));
}

#[test]
fn a_door_for_http_carries_streams_and_cannot_carry_datagrams_alone() {
    let file = format!(r#"{{{SINGLE}, "protocol": "http"}}"#);
    assert_eq!(modes("umbra local", &file).0, Mode::Streams);
    assert_eq!(modes("umbra local -u", &file).0, Mode::Streams);
    let errors = Outcome::bad("umbra local -U", &file);
    assert_eq!(errors, ["-U: programs that speak HTTP send no datagrams; use tcp_only, or another protocol"]);
}

#[test]
fn datagrams_pass_beside_a_plugin_only_where_somebody_asks_for_them() {
    let file = format!(r#"{{{SINGLE}, "plugin": "a-plugin"}}"#);
    for (words, expected, warnings) in [("", Mode::Streams, 0), (" -u", Mode::Both(()), 1)] {
        for end in ["local", "server"] {
            let mut outcome = outcome(&format!("umbra {end}{words}"), &file);
            let plan = outcome.plan.take().unwrap();
            let (door, servers) = modes_of(&plan.config, &plan.listed);
            let beside = expected.map(|()| "192.0.2.1:8388".to_owned());
            assert!(servers.iter().all(|server| *server == beside), "{servers:?}");
            assert_eq!(door, if end == "local" { Mode::Both(()) } else { expected });
            assert_eq!(outcome.warnings.len(), warnings, "{:?}", outcome.warnings);
        }
    }
    for end in ["local", "server"] {
        let errors = Outcome::bad(&format!("umbra {end} -U"), &file);
        assert_eq!(errors, ["-U: leaves a plugin nothing to carry; take the plugin out, or use tcp_and_udp"]);
    }
}

#[test]
fn the_idle_time_of_datagrams_is_that_of_streams_unless_it_has_its_own() {
    let timeout = |words: &str, rest: &str| {
        let (config, _) = Outcome::good(words, &format!("{{{SINGLE}{rest}}}"));
        udp(&config).timeout.as_secs()
    };
    assert_eq!(timeout("umbra server", ""), 300);
    assert_eq!(timeout("umbra server", r#", "timeout": 120"#), 120);
    assert_eq!(timeout("umbra server -t 130", r#", "timeout": 120"#), 130);
    assert_eq!(timeout("umbra local", r#", "timeout": 120, "udp_timeout": "7""#), 7);
    assert_eq!(timeout("umbra local --udp-timeout 8 -t 200", r#", "udp_timeout": 7"#), 8);
    let own = r#"{"servers": [{"server": "a", "password": "long-enough"}], "udp_timeout": 5, "locals": [{"udp_timeout": 6}]}"#;
    let (config, _) = Outcome::good("umbra local", own);
    assert_eq!(udp(&config).timeout.as_secs(), 6);
}

#[test]
fn a_2022_server_remembers_its_sessions_for_a_minute_and_others_are_as_short_as_they_are_told() {
    let timeout = |words: &str| {
        let (config, _) = Outcome::good(words, r#"{"udp_timeout": 10}"#);
        config.inbounds[0].udp_timeout().unwrap().as_secs()
    };
    let key = "AAECAwQFBgcICQoLDA0ODw==";
    assert_eq!(timeout(&format!("umbra server -m 2022-blake3-aes-128-gcm -k {key}")), 61);
    assert_eq!(timeout("umbra server -k long-enough"), 10);
    assert_eq!(timeout(&format!("umbra local -s a -m 2022-blake3-aes-128-gcm -k {key}")), 10);
}

#[test]
fn bounds_filtering_and_fragments_of_datagrams_read_from_files_and_flags() {
    let file = format!(
        r#"{{{SINGLE}, "udp_max_associations": 7, "udp_max_associations_per_source": 3,
            "udp_filtering": "address_dependent", "udp_fragment": true}}"#
    );
    let (config, _) = Outcome::good("umbra server", &file);
    let Udp { associations_max, associations_per_source_max, filtering, fragments, .. } =
        udp(&config).clone();
    assert_eq!(associations_max.map(NonZeroUsize::get), Some(7));
    assert_eq!(associations_per_source_max.map(NonZeroUsize::get), Some(3));
    assert_eq!((filtering, fragments), (Filtering::AddressDependent, true));
    let (config, _) = Outcome::good(
        "umbra server -k long-enough --udp-max-associations 9 --udp-max-associations-per-source 2 --udp-fragment",
        "",
    );
    let Udp { associations_max, associations_per_source_max, filtering, fragments, .. } =
        udp(&config).clone();
    assert_eq!(associations_max.map(NonZeroUsize::get), Some(9));
    assert_eq!(associations_per_source_max.map(NonZeroUsize::get), Some(2));
    assert_eq!((filtering, fragments), (Filtering::EndpointIndependent, true));
    let wrong = format!(
        r#"{{{SINGLE}, "udp_max_associations": 0, "udp_filtering": "cone", "udp_timeout": 0, "mode": "x"}}"#
    );
    let errors = Outcome::bad("umbra local", &wrong);
    for expected in [
        "mode: unknown mode x",
        "udp_timeout: 0 is no idle time",
        "udp_max_associations: 0 serves no one",
        "udp_filtering: cone is neither",
    ] {
        assert_eq!(
            errors.iter().filter(|error| error.starts_with(expected)).count(),
            1,
            "{expected} in {errors:?}"
        );
    }
}

#[test]
fn one_port_may_have_streams_of_one_door_and_datagrams_of_another() {
    let locals = |first: &str, second: &str| {
        format!(
            r#"{{"servers": [{{"server": "a", "password": "long-enough"}}], "locals": [
                {{"protocol": "tunnel", "forward_address": "a:1", "mode": "{first}"}},
                {{"protocol": "tunnel", "forward_address": "a:2", "mode": "{second}"}}]}}"#
        )
    };
    Outcome::good("umbra local", &locals("tcp_only", "udp_only"));
    for (first, second) in
        [("tcp_only", "tcp_and_udp"), ("tcp_and_udp", "udp_only"), ("udp_only", "udp_only")]
    {
        let errors = Outcome::bad("umbra local", &locals(first, second));
        assert!(errors[0].contains("another entry listens on 127.0.0.1:1080 already"), "{errors:?}");
    }
}

#[test]
fn the_short_flags_of_modes_cannot_stand_together() {
    for words in ["umbra local -u -U", "umbra server -u --mode udp_only"] {
        assert!(flags::parse(words.split(' ').map(Into::into)).is_err(), "{words}");
    }
}

#[test]
fn what_a_client_says_of_datagrams_in_an_entry_of_a_server_is_left_aside() {
    let file =
        r#"{"servers": [{"server": "a", "password": "long-enough", "udp_timeout": 9, "mode": "udp_only"}]}"#;
    let (config, warnings) = Outcome::good("umbra local", file);
    assert_eq!(udp(&config).timeout.as_secs(), 300);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("servers[0].udp_timeout: left aside"), "{warnings:?}");
}
