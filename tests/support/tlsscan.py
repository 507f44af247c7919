"""Scans listeners here by sslyze: `tlsscan HOST CA PORT...` prints by port what Mozilla "intermediate" forbids.

A program for .venvs/tls: sslyze pins an older cryptography than the product's.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from sslyze import (
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkLocation,
    ServerScanRequest,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)
from sslyze.plugins.certificate_info.implementation import CertificateInfoExtraArgument


def main(host: str, ca: str, *ports: str) -> None:
    """One line of JSON: by port an object that is empty where all is well."""
    extra = ScanCommandsExtraArguments(certificate_info=CertificateInfoExtraArgument(custom_ca_file=Path(ca)))
    scanner = Scanner()
    scanner.queue_scans(
        ServerScanRequest(ServerNetworkLocation(host, int(port), "127.0.0.1"), scan_commands_extra_arguments=extra)
        for port in ports
    )
    wanted = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
    issues: dict[int, dict[str, str]] = {}
    for result in scanner.get_results():
        issues[result.server_location.port] = {}
        try:
            check_server_against_tls_configuration(result, wanted)
        except ServerNotCompliantWithTlsConfiguration as error:
            issues[result.server_location.port] = dict(error.issues)
    print(json.dumps(issues))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
