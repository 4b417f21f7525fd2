//! `ss://` links (SIP002).
