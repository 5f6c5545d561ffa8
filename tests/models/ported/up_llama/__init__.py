# SPDX-License-Identifier: Apache-2.0
"""A Llama family with the files, the classes and the imports that ATB-Models' families have."""
