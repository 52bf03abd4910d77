//! The two settings files that `init` writes.

use super::InitOptions;
use std::path::Path;

pub(super) fn gateway_config(client: &str, token_sha256: &str) -> String {
    format!(
        r#"# Settings of the gateway; start it with `tether-cloud serve --config` and this file's path.
# Relative paths start at this file's folder.
listen = "[::]:4433"
cert = "server.pem"
key = "server.key"
# Mutual TLS: clients with a certificate of this CA need no token.
client_ca = "ca.pem"

# One block for each device; sha256 is the hash of its token, the token itself is not kept here.
[[tokens]]
name = "{client}"
sha256 = "{token_sha256}"

# The zoo of models. This one answers with the small model that the device has, too.
[[zoo]]
name = "smollm2"
kind = "candle"
model = "smollm2-135m-instruct"
vision = "measured"
"#
    )
}

pub(super) fn cloud_section(options: &InitOptions, host: &str, server_sha256: &str) -> String {
    let dir = std::path::absolute(&options.dir).unwrap_or_else(|_| options.dir.clone());
    let file = |name: &str| quoted(&dir.join(name));
    let client = &options.client;
    let certificate = if options.client_certificate {
        let (cert, key) = (file(&format!("{client}.pem")), file(&format!("{client}.key")));
        format!("# Or, instead of the token, mutual TLS:\n# client_cert = {cert}\n# client_key = {key}\n")
    } else {
        String::new()
    };
    format!(
        r#"# The device's side, for its config.toml. On another machine copy ca.pem and {client}.token there
# and write their new paths here.
[cloud]
kind = "quic"
address = {address}
server_name = {host}
ca = {ca}
token_file = {token}
# Instead of `ca`, this one certificate and no other:
# server_sha256 = "{server_sha256}"
{certificate}"#,
        address = toml::Value::from(options.address.as_str()),
        host = toml::Value::from(host),
        ca = file("ca.pem"),
        token = file(&format!("{client}.token")),
    )
}

fn quoted(path: &Path) -> toml::Value {
    toml::Value::from(path.to_string_lossy().as_ref())
}
