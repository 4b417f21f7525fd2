//! Keys that are not ours: harmless, dangerous to leave aside, misplaced, or misspelt.

use jsonc_parser::ast::Value as Json;

use crate::foreign::{Foreign, IGNORED, OF_MANAGERS, REFUSED};
use crate::reference::{Place, Setting, is_nearly, leading_key, nearest_key, protecting_key};
use crate::report::Report;

/// Tells what is to be done about a key that has no meaning at `place`.
pub(super) fn judge_stranger(
    place: Place,
    key: &str,
    key_path: String,
    value: &Json<'_>,
    report: &mut Report,
) {
    let home = Place::ALL
        .into_iter()
        .find(|home| Setting::find(*home, key).is_some_and(|found| found.id.leads() || found.id.protects()));
    if let Some(home) = home.filter(|_| !is_off(value)) {
        report.error(
            key_path,
            format!("has no meaning here, only {}; move it there, or take it out", home.words()),
        );
        return;
    }
    if let Some(meant) = leading_key(place, key).filter(|_| !is_off(value)) {
        let text = format!(
            "unknown key, and traffic would go elsewhere if {meant} is meant; correct it, or take it out"
        );
        report.error(key_path, text);
        return;
    }
    let named = |foreign: &&Foreign| foreign.key == key && is_theirs(place, key, value);
    if place.is_strict() && !(place.is_shared() && IGNORED.iter().any(|foreign| named(&foreign))) {
        let hint = nearest_key(place, key).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        report.error(
            key_path,
            format!("unknown key, without which more or other traffic could go here than is meant{hint}"),
        );
        return;
    }
    let home = Place::ALL.into_iter().find(|home| Setting::find(*home, key).is_some());
    // What has its meaning elsewhere is told so, unless there is hardly a doubt.
    let meant = protecting_key(place, key).filter(|meant| home.is_none() || is_nearly(key, meant));
    if let Some(refused) = REFUSED.iter().chain(OF_MANAGERS).find(named) {
        if !is_off(value) {
            report.error(key_path, refused.why);
        }
    } else if let Some(ignored) = IGNORED.iter().find(named) {
        if !is_off(value) {
            report.warn(key_path, format!("left aside: {}", ignored.why));
        }
    } else if let Some(meant) = meant.filter(|_| !is_off(value)) {
        let text = format!(
            "unknown key, and less would be protected than is meant; did you mean {meant}? correct it, or take it out"
        );
        report.error(key_path, text);
    } else if let Some(home) = home {
        report.warn(key_path, format!("left aside: it has its meaning {}", home.words()));
    } else if let Some(nearest) = nearest_key(place, key) {
        report.warn(key_path, format!("unknown key, left aside; did you mean {nearest}?"));
    } else {
        report.warn(key_path, "unknown key, left aside; docs/configuration.md lists all keys");
    }
}

/// Whether `key` asks for a manager.
pub(super) fn is_managers(key: &str, value: &Json<'_>) -> bool {
    OF_MANAGERS.iter().any(|foreign| foreign.key == key) && !is_off(value)
}

/// Whether `key` asks for an obfuscation of ShadowsocksR.
pub(super) fn is_obfuscation(key: &str, value: &Json<'_>) -> bool {
    key == "obfs" && matches!(value, Json::StringLit(text) if !text.value.is_empty() && text.value != "plain")
}

/// Whether another program would follow `key` here: the first implementation takes one name at the top of the file for the user that
/// it becomes, and whoever writes anything else under that key means `users`.
fn is_theirs(place: Place, key: &str, value: &Json<'_>) -> bool {
    key != "user" || (place == Place::Root && matches!(value, Json::StringLit(_)))
}

/// A value that says: not this.
fn is_off(value: &Json<'_>) -> bool {
    match value {
        Json::StringLit(text) => text.value.is_empty(),
        Json::NumberLit(number) => number.value == "0",
        Json::BooleanLit(switch) => !switch.value,
        Json::Object(object) => object.properties.is_empty(),
        Json::Array(array) => array.elements.is_empty(),
        Json::NullKeyword(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{errors, read_good};

    #[test]
    fn strange_keys_warn_with_a_hint() {
        let (_, warnings) =
            read_good(r#"{"timeot": "x", "user": "nobody", "zzzz": 1, "servers": [{"local_port": 1}]}"#);
        assert_eq!(warnings[0], "timeot: unknown key, left aside; did you mean timeout?");
        assert!(warnings[1].starts_with("user: left aside: umbra does not change its user yet"));
        assert!(warnings[2].starts_with("zzzz: unknown key"));
        assert_eq!(
            warnings[3],
            "servers[0].local_port: left aside: it has its meaning at the top of the file"
        );
    }

    #[test]
    fn a_key_that_was_to_say_where_traffic_goes_is_not_left_aside() {
        for key in ["rule", "rulse", "Rules", "otherwize", "pahts", "acls", "outbound-proxy"] {
            let found = errors(&format!(r#"{{"{key}": ["x"]}}"#));
            assert!(found[0].contains("traffic would go elsewhere"), "{key}: {found:?}");
        }
        assert!(
            errors(r#"{"servers": [{"acl": "x"}]}"#)[0].starts_with("servers[0].acl: has no meaning here")
        );
        assert!(errors(r#"{"servers": [{"acl": ""}], "rulse": []}"#).is_empty(), "which says: not this");
        let (_, warnings) = read_good(r#"{"path": null, "proxy": 1, "timeot": 1}"#);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn a_key_that_was_to_protect_is_not_left_aside() {
        for (text, error) in [
            (
                r#"{"forbid_privat": true}"#,
                "forbid_privat: unknown key, and less would be protected than is meant; did you mean forbid_private?",
            ),
            (r#"{"forbiden_ip": "10.0.0.0/8"}"#, "did you mean forbidden_ip?"),
            (r#"{"allow_ip": "10.0.0.1"}"#, "did you mean allowed_ip?"),
            (r#"{"pasword": "x"}"#, "did you mean password?"),
            (r#"{"acl_file": "x"}"#, "did you mean acl?"),
            (r#"{"roles": [{}]}"#, "did you mean rules?"),
            (r#"{"securty": {}, "securiti": {"a": 1}}"#, "securiti: unknown key"),
            (r#"{"security": {"insecure_method": "deny"}}"#, "security.insecure_method: unknown key"),
            (r#"{"udp_filter": "address_dependent"}"#, "did you mean udp_filtering?"),
            (r#"{"accept_proxy_protocols": "10.0.0.1"}"#, "did you mean accept_proxy_protocol?"),
            (
                r#"{"user": [{"name": "ann", "password": "x"}]}"#,
                "user: unknown key, and less would be protected",
            ),
            (
                r#"{"locals": [{"user": [{"name": "ann", "password": "x"}]}]}"#,
                "locals[0].user: unknown key, and less would be protected",
            ),
            (r#"{"locals": [{"user": "ann"}]}"#, "did you mean users?"),
            (r#"{"servers": [{"enabled": "x"}]}"#, "did you mean disabled?"),
            (r#"{"locals": [{"http_auth_config_path": "x"}]}"#, "did you mean socks5_auth_config_path?"),
            (r#"{"locals": [{"password": "x"}]}"#, "locals[0].password: has no meaning here"),
            (
                r#"{"servers": [{"forbid_private": true}]}"#,
                "servers[0].forbid_private: has no meaning here, only at the top of the file",
            ),
            (r#"{"sever": "127.0.0.1"}"#, "traffic would go elsewhere if server is meant"),
            (r#"{"local_s": [{}]}"#, "traffic would go elsewhere if locals is meant"),
            (r#"{"server": []}"#, "server: empty; name one at least, or leave it out"),
        ] {
            let found = errors(text);
            assert!(found.len() == 1 && found[0].contains(error), "{text}: {found:?}");
        }
        assert!(errors(r#"{"forbid_privat": false, "pasword": ""}"#).is_empty(), "which says: not this");
    }

    #[test]
    fn an_address_that_traffic_was_to_leave_by_is_not_left_aside() {
        for key in ["outbound_bind_addr", "local_ipv4_address", "local_ipv6_address"] {
            for place in ["", "servers[0]."] {
                let entry = format!(r#"{{"{key}": "192.0.2.7"}}"#);
                let text = if place.is_empty() { entry } else { format!(r#"{{"servers": [{entry}]}}"#) };
                let found = errors(&text);
                let wanted =
                    format!("{place}{key}: not supported yet, and without it traffic would leave elsewhere");
                assert!(found.len() == 1 && found[0].starts_with(&wanted), "{text}: {found:?}");
            }
            assert!(errors(&format!(r#"{{"{key}": ""}}"#)).is_empty(), "which says: not this");
        }
    }

    #[test]
    fn keys_of_other_programs_keep_nothing_from_starting() {
        for key in [
            "configs",
            "server_ipv6",
            "server_info",
            "strategy",
            "enabled",
            "shareOverLan",
            "localPort",
            "isVerboseLogging",
            "protocol_param",
            "redirect",
            "comment",
            "description",
            "outbound_send_buffer_size",
            "outbound_udp_allow_fragmentation",
            "tcp_keep_alive",
            "no_udp",
            "sockets",
        ] {
            let (_, warnings) = read_good(&format!(r#"{{"{key}": "x"}}"#));
            assert_eq!(warnings.len(), 1, "{key}: {warnings:?}");
        }
        let (_, warnings) =
            read_good(r#"{"security": {"replay_attack": {"policy": "reject"}}, "user": "nobody"}"#);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn an_object_that_is_umbras_own_has_no_unknown_keys() {
        for (text, place) in [
            (r#"{"groups": [{"polcy": "random"}]}"#, "groups[0].polcy"),
            (r#"{"groups": [{"members": [{"wight": 2}]}]}"#, "groups[0].members[0].wight"),
            (r#"{"groups": [{"probe": {"urll": "http://a/"}}]}"#, "groups[0].probe.urll"),
            (r#"{"paths": [{"hop": "socks5://a"}]}"#, "paths[0].hop"),
            (r#"{"paths": [{"hops": [{"tsl": true}]}]}"#, "paths[0].hops[0].tsl"),
            (r#"{"rules": [{"domain": "a"}]}"#, "rules[0].domain"),
            (r#"{"security": {"insecure": "deny"}}"#, "security.insecure"),
        ] {
            let found = errors(text);
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("{place}: unknown key")),
                "{text}: {found:?}"
            );
        }
    }
}
