//! `records.config`, name by name.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Option<Records>, Report) {
    let mut report = Report::default();
    let records = Records::read(text, "records.config", &mut report);
    assert_eq!(records.is_some(), report.errors.is_empty(), "{report:?}");
    (records, report)
}

fn good(text: &str) -> Records {
    let (records, report) = read(text);
    assert!(report.warnings.is_empty(), "{report:?}");
    records.unwrap_or_else(|| panic!("{text}: {report:?}"))
}

fn error(text: &str) -> String {
    let (records, report) = read(text);
    assert!(records.is_none(), "{text} was taken");
    assert_eq!(report.errors.len(), 1, "{report:#?}");
    report.errors[0].to_string()
}

fn warning(text: &str) -> String {
    let (records, report) = read(text);
    assert!(records.is_some(), "{report:?}");
    assert_eq!(report.warnings.len(), 1, "{report:#?}");
    report.warnings[0].to_string()
}

fn line(name: &str, value: &str) -> String {
    let kind = NAMES.into_iter().find(|(known, _)| *known == name).unwrap().1.kind();
    format!("CONFIG {PREFIX}{name} {kind} {value}\n")
}

#[test]
fn a_file_that_says_nothing_has_traffic_servers_defaults() {
    for text in ["", "# records\n\n", "CONFIG proxy.config.proxy_name STRING me\nLOCAL proxy.local.x INT 1\n"]
    {
        let records = good(text);
        let expected = Records { needed_place: "records.config".into(), ..Records::default() };
        assert_eq!(records, expected, "{text}");
    }
    let records = Records::default();
    assert!(!records.socks_needed && !records.accept_enabled && records.default_servers.is_empty());
    assert_eq!(records.version, Version::V4);
    let secs = [records.socks_timeout, records.server_connect_timeout, records.server_retry_time];
    assert_eq!(secs.map(|time| time.as_secs()), [100, 10, 300]);
    let counts =
        [records.per_server_connection_attempts, records.connection_attempts, records.server_fail_threshold];
    assert_eq!(counts.map(NonZeroU32::get), [1, 4, 2]);
    assert_eq!((records.accept_port, records.http_port), (1080, 80));
    assert_eq!(records.config_file, PathBuf::from("socks.config"));
}

#[test]
fn every_name_is_followed_among_those_of_others() {
    let records = good(
        "# SOCKS\r\n\
         CONFIG proxy.config.http.server_ports STRING 8080\r\n\
         CONFIG proxy.config.socks.socks_needed INT 1\r\n\
         CONFIG\tproxy.config.socks.socks_version   INT\t5  \r\n\
         LOCAL proxy.config.socks.socks_config_file STRING \"my socks.config\"\r\n  \
         CONFIG proxy.config.socks.socks_timeout INT 7\r\n\
         CONFIG proxy.config.socks.server_connect_timeout INT 3\r\n\
         CONFIG proxy.config.socks.per_server_connection_attempts INT 2\r\n\
         CONFIG proxy.config.socks.connection_attempts INT 9\r\n\
         CONFIG proxy.config.socks.server_retry_timeout INT 300\r\n\
         CONFIG proxy.config.socks.default_servers STRING 10.0.0.1:1080; socks.example:1081\r\n\
         CONFIG proxy.config.socks.server_retry_time INT 60\r\n\
         CONFIG proxy.config.socks.server_fail_threshold INT 5\r\n\
         CONFIG proxy.config.socks.accept_enabled INT 1\r\n\
         CONFIG proxy.config.socks.accept_port INT 1090\r\n\
         CONFIG proxy.config.socks.http_port INT 81\r\n\
         CONFIG proxy.config.something INT not-a-number\r\n\
         whatever else\r\n",
    );
    let servers: Vec<_> = records.default_servers.iter().map(|parent| parent.address.to_string()).collect();
    assert_eq!(servers, ["10.0.0.1:1080", "socks.example:1081"]);
    let count = |number| NonZeroU32::new(number).unwrap();
    let expected = Records {
        socks_needed: true,
        version: Version::V5,
        socks_timeout: Duration::from_secs(7),
        server_connect_timeout: Duration::from_secs(3),
        per_server_connection_attempts: count(2),
        connection_attempts: count(9),
        default_servers: records.default_servers.clone(),
        server_retry_time: Duration::from_secs(60),
        server_fail_threshold: count(5),
        accept_enabled: true,
        accept_port: 1090,
        http_port: 81,
        config_file: "my socks.config".into(),
        needed_place: "records.config:3".into(),
    };
    assert_eq!(records, expected);
}

#[test]
fn a_file_that_asks_for_no_parents_is_told_with_its_line() {
    for (text, place) in [
        (line("socks_needed", "0"), Some("records.config:1")),
        (line("accept_enabled", "1"), Some("records.config")),
        (String::new(), Some("records.config")),
        (line("socks_needed", "1"), None),
    ] {
        let mut report = Report::default();
        good(&text).check_needed(&mut report);
        let places: Vec<_> = report.errors.iter().map(|note| note.place.as_str()).collect();
        assert_eq!(places, Vec::from_iter(place), "{text}");
        assert!(report.errors.iter().all(|note| note.text.contains("socks_needed INT 1")));
    }
}

#[test]
fn a_value_that_is_wrong_refuses_the_file_with_its_line_and_a_remedy() {
    for (name, value, why) in [
        ("socks_version", "6", "socks_version: 6 does not do; the versions of SOCKS are 4 and 5"),
        ("socks_version", "", "socks_version: nothing does not do"),
        ("socks_version", "5 # five", "5 # five does not do"),
        ("socks_needed", "2", "write 1 for on or 0 for off"),
        ("socks_needed", "yes", "write 1 for on or 0 for off"),
        ("accept_enabled", "-1", "write 1 for on or 0 for off"),
        ("socks_timeout", "0", "write seconds from 1 to 604800"),
        ("socks_timeout", "604801", "write seconds from 1 to"),
        ("server_connect_timeout", "10s", "write seconds from 1 to"),
        ("server_retry_time", "99999999999999999999", "write seconds from 1 to"),
        ("server_retry_timeout", "soon", "write seconds from 1 to"),
        ("connection_attempts", "0", "write a number from 1 to 1000"),
        ("per_server_connection_attempts", "+2", "write a number from 1 to"),
        ("server_fail_threshold", "1001", "write a number from 1 to"),
        ("accept_port", "65536", "write a port from 1 to 65535"),
        ("http_port", "0", "write a port from 1 to 65535"),
        ("default_servers", "10.0.0.1", "default_servers: 10.0.0.1: has no port"),
        ("default_servers", "10.0.0.1:1080;b", "default_servers: b: has no port"),
        ("socks_config_file", "NULL", "the name of a file"),
        ("socks_config_file", "socks.yaml", "socks.yaml is not read"),
    ] {
        let told = error(&format!("#\n{}", line(name, value)));
        assert!(told.starts_with("records.config:2: ") && told.contains(why), "{told}");
    }
}

#[test]
fn a_type_that_is_not_the_names_own_is_an_error() {
    let told = error("CONFIG proxy.config.socks.socks_version STRING 5");
    assert!(told.contains("socks_version is of type INT, not STRING; write CONFIG proxy."), "{told}");
    assert!(error("CONFIG proxy.config.socks.default_servers INT 5").contains("of type STRING, not INT"));
    assert!(error("CONFIG proxy.config.socks.socks_version").contains("of type INT, not none"));
    assert!(error("CONFIG proxy.config.socks.socks_timeout 5").contains("of type INT, not 5"));
}

#[test]
fn lines_of_another_form_are_not_passed_over_if_they_are_about_socks() {
    for text in [
        "proxy.config.socks.socks_needed INT 1",
        "CONFG proxy.config.socks.socks_needed INT 1",
        "config proxy.config.socks.socks_needed INT 1",
        "CONFIG x INT 1\nproxy.config.socks.default_servers: 10.0.0.1:1080",
        "socks:\n  socks_needed: 1",
        "ts:\n  socks:\n    socks_version: 5",
    ] {
        assert!(error(text).contains("write CONFIG NAME TYPE VALUE"), "{text}");
    }
}

#[test]
fn an_unknown_name_is_a_warning_with_the_nearest_one() {
    let told = warning("CONFIG proxy.config.socks.server_timeout INT 300");
    assert!(
        told.starts_with("records.config:1: unknown name proxy.config.socks.server_timeout, which is"),
        "{told}"
    );
    assert!(told.contains("did you mean proxy.config.socks."), "{told}");
    let told = warning("CONFIG proxy.config.socks.password STRING hunter2");
    assert!(!told.contains("hunter2"), "{told}");
    // Nothing of the name itself is left.
    assert!(warning("CONFIG proxy.config.socks. INT 1").contains("unknown name"));
}

#[test]
fn a_name_that_is_nearly_a_known_one_is_an_error() {
    for (name, near) in [
        ("default_server", "default_servers"),
        ("defualt_servers", "default_servers"),
        ("Socks_Needed", "socks_needed"),
        ("sock_needed", "socks_needed"),
        ("socks_need", "socks_needed"),
        ("socks_confg_file", "socks_config_file"),
        ("connect_attempts", "connection_attempts"),
    ] {
        let told = error(&format!("CONFIG proxy.config.socks.{name} STRING 10.0.0.1:1080"));
        let wanted = format!("did you mean proxy.config.socks.{near}? correct it, or take it out");
        assert!(told.starts_with("records.config:1: unknown name") && told.ends_with(&wanted), "{told}");
    }
}

#[test]
fn the_names_of_a_whole_server_are_passed_over_without_a_word() {
    let names = [
        "proxy_name STRING me",
        "http.server_ports STRING 8080",
        "http.connect_attempts_max_retries INT 3",
        "http.connect_attempts_timeout INT 30",
        "http.parent_proxy.retry_time INT 300",
        "http.parent_proxy.fail_threshold INT 10",
        "http.parent_proxy.self_detect INT 2",
        "net.connections_throttle INT 30000",
        "net.default_inactivity_timeout INT 86400",
        "hostdb.timeout INT 86400",
        "ssl.client.verify.server.policy STRING PERMISSIVE",
        "accept_threads INT 1",
        "log.rolling_enabled INT 1",
        "url_remap.filename STRING remap.config",
    ];
    let lines: String = names.iter().map(|name| format!("CONFIG proxy.config.{name}\n")).collect();
    assert!(good(&(lines + &line("socks_needed", "1"))).socks_needed);
}

#[test]
fn the_name_that_nothing_reads_is_a_warning_unless_it_is_as_it_was() {
    assert!(warning(&line("server_retry_timeout", "30")).contains("set server_retry_time"));
    assert_eq!(good(&line("server_retry_timeout", "300")).server_retry_time, RETRY);
}

#[test]
fn the_last_of_two_lines_counts_with_a_warning() {
    let (records, report) = read(&(line("socks_version", "4") + &line("socks_version", "5")));
    assert_eq!(records.unwrap().version, Version::V5);
    assert_eq!(report.warnings[0].place, "records.config:2");
}

#[test]
fn no_servers_are_said_in_three_ways() {
    for value in ["", "NULL", "\"\""] {
        assert!(good(&line("default_servers", value)).default_servers.is_empty(), "{value}");
    }
    assert_eq!(good(&line("default_servers", "\"a:1;b:2\"")).default_servers.len(), 2);
    let told = error(&line("default_servers", "alice:hunter2@a:1"));
    assert!(!told.contains("hunter2"), "{told}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        text: String,
        index in 0..NAMES.len(),
        tail in "\\PC{0,12}",
        kind in "(INT|STRING|\\PC{0,3})",
    ) {
        let _ = read(&text);
        let _ = read(&format!("CONFIG {PREFIX}{} {kind} {tail}", NAMES[index].0));
        let _ = read(&format!("CONFIG {PREFIX}{tail} {kind} {text}"));
    }

    #[test]
    fn what_is_written_out_reads_back_equal(
        switches: (bool, bool, bool),
        secs in prop::array::uniform3(1..=SECS_MAX),
        counts in prop::array::uniform3(1..=COUNT_MAX),
        ports in prop::array::uniform2(1..=u16::MAX),
        hosts in prop::collection::vec("[a-z]{1,9}", 0..4),
        file in "[a-z/]{1,9}\\.config",
    ) {
        let servers: Vec<_> = hosts.iter().map(|host| format!("{host}:{}", ports[0])).collect();
        let (needed, is_five, accepts) = switches;
        let text = [
            line("socks_needed", if needed { "1" } else { "0" }),
            line("socks_version", if is_five { "5" } else { "4" }),
            line("accept_enabled", if accepts { "1" } else { "0" }),
            line("socks_timeout", &secs[0].to_string()),
            line("server_connect_timeout", &secs[1].to_string()),
            line("server_retry_time", &secs[2].to_string()),
            line("per_server_connection_attempts", &counts[0].to_string()),
            line("connection_attempts", &counts[1].to_string()),
            line("server_fail_threshold", &counts[2].to_string()),
            line("accept_port", &ports[0].to_string()),
            line("http_port", &ports[1].to_string()),
            line("default_servers", &servers.join(";")),
            line("socks_config_file", &file),
        ].concat();
        let count = |index: usize| NonZeroU32::new(counts[index]).unwrap();
        let time = |index: usize| Duration::from_secs(secs[index].into());
        let records = good(&text);
        let read: Vec<_> = records.default_servers.iter().map(|parent| parent.address.to_string()).collect();
        prop_assert_eq!(read, servers);
        let expected = Records {
            socks_needed: needed,
            version: if is_five { Version::V5 } else { Version::V4 },
            socks_timeout: time(0),
            server_connect_timeout: time(1),
            per_server_connection_attempts: count(0),
            connection_attempts: count(1),
            default_servers: records.default_servers.clone(),
            server_retry_time: time(2),
            server_fail_threshold: count(2),
            accept_enabled: accepts,
            accept_port: ports[0],
            http_port: ports[1],
            config_file: file.into(),
            needed_place: "records.config:1".into(),
        };
        prop_assert_eq!(records, expected);
    }
}
