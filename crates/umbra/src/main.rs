//! The door: `umbra local`, `server`, `tunnel`, `up`, `key`, `check`, `route`, `probe` and `url`.
//!
//! [`flags`] and [`mod@file`] say what was said, [`resolve`] what will be done, `umbra_relay` does it.
#![forbid(unsafe_code)]

mod file;
mod flags;
mod foreign;
mod key;
mod lines;
mod link;
mod linked;
mod log;
#[cfg(test)]
#[path = "tests/manual.rs"]
mod manual;
mod plugin;
mod probe;
mod process;
mod qr;
mod raw;
mod reference;
mod report;
mod resolve;
mod roster;
mod route;
mod run;
mod secret;
mod subscription;
mod traffic_server;
mod up;
mod url;
mod variable;

use std::io::{self, Write as _};
use std::process::ExitCode;

use flags::Command;
use umbra_proto::shadowsocks::Method;

fn main() -> ExitCode {
    match flags::parse(std::env::args_os()) {
        Ok(Command::Run(role, options)) => run::run(role, options),
        Ok(Command::Check(role, options)) => run::check(role, options),
        Ok(Command::Up(up)) => up::run(&up),
        Ok(Command::Key(method)) => print_key(method),
        Ok(Command::Url(url)) => url::run(url),
        Ok(Command::Route(asked)) => route::run(asked),
        Ok(Command::Probe(tried)) => probe::run(tried),
        Err(told) => {
            // Help and version come this way too. A closed terminal is no reason to fail differently.
            let _unheard = told.print();
            if told.use_stderr() { ExitCode::from(BAD_COMMAND_LINE) } else { ExitCode::SUCCESS }
        }
    }
}

fn print_key(method: Method) -> ExitCode {
    if method.is_insecure() {
        let good = key::maker(method);
        return fail(&format!("{}; make a key with: umbra key {good}", secret::explain_insecure(method)));
    }
    let secret = match key::make(method) {
        Ok(secret) => secret,
        Err(error) => return fail(&format!("the system gives no random numbers: {error}")),
    };
    match writeln!(io::stdout(), "{}", *secret) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot print the key: {error}")),
    }
}

/// Says why nothing was started.
fn fail(why: &str) -> ExitCode {
    say(&format!("error: {why}"));
    ExitCode::FAILURE
}

/// One line on the standard error output, which may be closed.
fn say(line: &str) {
    let _unheard = writeln!(io::stderr(), "{line}");
}

const BAD_COMMAND_LINE: u8 = 2;
