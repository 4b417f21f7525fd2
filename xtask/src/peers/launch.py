"""Runs the Python Shadowsocks as it is, with the names put back that Python and OpenSSL have dropped since.

Arguments: its folder, then "probe", "local" or "server", then its own.
"""

import collections
import collections.abc
import ctypes
import ctypes.util
import sys

# Python 3.10 moved the abstract collections for good.
collections.MutableMapping = collections.abc.MutableMapping

# OpenSSL 1.1 renamed the call.
look_up = ctypes.CDLL.__getattr__


def look_up_renamed(library, name):
    if name != "EVP_CIPHER_CTX_cleanup":
        return look_up(library, name)
    function = look_up(library, "EVP_CIPHER_CTX_reset")
    # Under both names, so that the types given to it stay with it.
    setattr(library, name, function)
    return function


ctypes.CDLL.__getattr__ = look_up_renamed

# It also looks for a library called "liblibcrypto", which makes some versions of Python fail.
find_library = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if name.startswith("lib") else find_library(name)

# OpenSSL 3 keeps the old ciphers in a part that is loaded only when asked for; loading it turns off the other one.
libcrypto = ctypes.CDLL(find_library("crypto"))
if hasattr(libcrypto, "OSSL_PROVIDER_load"):
    for provider in (b"legacy", b"default"):
        libcrypto.OSSL_PROVIDER_load(None, provider)

sys.path.insert(0, sys.argv.pop(1))
side = sys.argv.pop(1)

from shadowsocks import encrypt, local, server  # noqa: E402

if side == "probe":
    for method in ("aes-256-cfb", "bf-cfb", "rc4-md5", "chacha20"):
        encrypt.Encryptor(b"probe", method).encrypt(b"probe")
elif side == "local":
    local.main()
else:
    server.main()
