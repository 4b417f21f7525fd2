//! A network from a seed.
