# SPDX-License-Identifier: Apache-2.0
"""Serves models of atb_core over HTTP in the form of OpenAI's API; `atb serve` is its command."""
