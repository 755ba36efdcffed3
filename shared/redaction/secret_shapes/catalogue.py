"""Catalogue of secrets with a known shape: for each, words that all its tokens contain, and a
pattern.

To add a service, add an entry, a token of its shape to the tests and its name to docs/feedback.md.
Services document these shapes, or register them for secret scanning.
"""

import re

from shared.redaction.pii_match import MASK

_PRIVATE_KEY = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

# The search for the words first is a cheap filter. Repetitions are bounded, or possessive with a
# start that no earlier attempt can have covered, so the time is linear for every text. If only a
# part of the match is secret, the group `secret` marks it.
SECRET_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (words, re.compile(pattern))
    for words, pattern in (
        # A key block; if it is cut off, the lines that are present.
        (
            ("PRIVATE KEY",),
            rf"-----BEGIN {_PRIVATE_KEY}(?:(?:[^-{MASK}]++|-(?!----))*+-----END "
            rf"{_PRIVATE_KEY}|(?:\s*+[A-Za-z0-9+/=]{{24,}}+)++)",
        ),
        # Passwords in URLs, authorization headers.
        (("://",), r"""://[^\s/@:"'<>\\]{0,64}:(?P<secret>[^\s/@"'<>\\]{1,256})@"""),
        (
            ("earer ",),
            r"(?<!\w)[Bb]earer\s{1,4}(?=[A-Za-z_.~+/-]{0,64}\d)(?P<secret>[\w.~+/-]{16,}+=*+)",
        ),
        (
            ("asic ",),
            r"(?<!\w)[Aa]uthorization\W{1,4}[Bb]asic\s{1,4}(?P<secret>[A-Za-z0-9+/]{8,}+=*+)",
        ),
        # JSON Web Tokens.
        (("eyJ",), r"(?<![\w-])eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]*+"),
        # Amazon Web Services.
        (("AKIA", "ASIA"), r"(?<!\w)A(?:KIA|SIA)[A-Z0-9]{16}(?!\w)"),
        (
            ("secret_access_key", "SECRET_ACCESS_KEY", "SecretAccessKey"),
            r"(?i:secret_?access_?key)\W{1,6}(?P<secret>[A-Za-z0-9/+]{40})(?![\w/+])",
        ),
        # GitHub, GitLab.
        (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,255}"),
        (("github_pat_",), r"(?<!\w)github_pat_\w{22,255}"),
        (
            ("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-", "glsoat-"),
            r"(?<!\w)gl(?:pat|dt|rt|ptt|cbt|soat)-[\w-]{20,255}",
        ),
        # Slack.
        (("xox",), r"(?<!\w)xox[a-z]-[\w-]{10,255}"),
        (("xapp-",), r"(?<!\w)xapp-\d-[\w-]{10,255}"),
        (("hooks.slack.com/services/",), r"hooks\.slack\.com/services/(?P<secret>[\w/]{20,255})"),
        # Google.
        (("AIza",), r"(?<!\w)AIza[\w-]{35}(?![\w-])"),
        (("GOCSPX-",), r"(?<!\w)GOCSPX-[\w-]{28}(?![\w-])"),
        (("ya29.",), r"(?<!\w)ya29\.[\w-]{20,2048}"),
        # OpenAI, Anthropic and similar services; Stripe; Hugging Face, npm, PyPI, SendGrid.
        # A run of twelve letters and digits sets them apart from class names and HTML ids, such as
        # `sk-estimator-id-1-label`.
        (
            ("sk-",),
            r"(?<![\w-])sk-(?=(?:[A-Za-z0-9_]{0,11}-){0,4}+(?=[A-Za-z_]{0,64}\d)[A-Za-z0-9_]{12})"
            r"[\w-]{20,255}",
        ),
        (("_live_", "_test_"), r"(?<!\w)[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}"),
        (("whsec_",), r"(?<!\w)whsec_[A-Za-z0-9+/=]{24,255}"),
        (("hf_",), r"(?<!\w)hf_[A-Za-z0-9]{30,255}"),
        (("npm_",), r"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)"),
        (("pypi-",), r"(?<!\w)pypi-AgE[\w-]{50,1024}"),
        # Groq, xAI, Databricks, LangSmith, Perplexity, Replicate, Fireworks, NVIDIA, DigitalOcean.
        (("gsk_",), r"(?<!\w)gsk_[A-Za-z0-9]{40,255}"),
        (("xai-",), r"(?<![\w-])xai-[A-Za-z0-9]{60,255}"),
        (("dapi", "dkea", "dose"), r"(?<!\w)d(?:api|kea|ose)[0-9a-f]{32}(?:-\d{1,2})?(?![\w-])"),
        (
            ("lsv2_", "ls__"),
            r"(?<!\w)(?:lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}|ls__[0-9a-f]{32})(?!\w)",
        ),
        (("pplx-",), r"(?<![\w-])pplx-[A-Za-z0-9]{40,255}"),
        (("r8_",), r"(?<!\w)r8_[A-Za-z0-9]{37}(?!\w)"),
        (("fw_",), r"(?<!\w)fw_(?=[A-Za-z]{0,22}\d)[A-Za-z0-9]{22,64}(?!\w)"),
        (("nvapi-",), r"(?<![\w-])nvapi-[\w-]{60,255}"),
        (("dop_v1_", "doo_v1_", "dor_v1_"), r"(?<!\w)do[por]_v1_[0-9a-f]{64}(?!\w)"),
        # Discord: bot tokens (of which the first part is a number in Base64), webhooks.
        (
            ("MD", "MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT"),
            r"(?<![\w.-])[MNO][DTjz][A-Za-z0-9]{21,26}\.[\w-]{6}\.[\w-]{27,40}(?![\w.-])",
        ),
        (("mfa.",), r"(?<![\w.-])mfa\.[\w-]{80,100}(?![\w-])"),
        (("/api/webhooks/",), r"/api/webhooks/\d{15,21}/(?P<secret>[\w-]{50,100})"),
        # Telegram bots.
        ((":AA",), r"(?<![\w:])\d{8,10}:AA[\w-]{33}(?![\w-])"),
        # Azure: keys of storage, service bus and similar, of its AI services (new and old), client
        # secrets, signatures of shared access.
        (
            ("AccountKey=", "SharedAccessKey=", "AccessKey="),
            r"(?:Account|SharedAccess|Access)Key=(?P<secret>[A-Za-z0-9+/]{40,90}={0,2})",
        ),
        (("JQQJ99",), r"(?<!\w)[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{26}(?!\w)"),
        (
            ("ubscription-", "pi-k", "pi-K", "pi_k", "PI_K", "AZURE_", "azure_"),
            r"(?i:ocp-apim-subscription-key|api[-_]key|azure\w{0,40}_key)[\"']?\s{0,3}[:=]\s{0,3}"
            r"[\"']?(?P<secret>[0-9a-f]{32})(?!\w)",
        ),
        (("Q~",), r"(?<![\w~.-])[A-Za-z0-9_.~-]{3}\dQ~[A-Za-z0-9_.~-]{31,34}(?![\w~-])"),
        (("sig=",), r"(?<=[?&]sig=)(?P<secret>[A-Za-z0-9%+/]{43,70}=?)"),
        # Mailgun, Twilio, Shopify, Square, Linear, Notion, Figma, Sentry.
        (("key-",), r"(?<![\w-])key-[0-9a-f]{32}(?!\w)"),
        (("SK",), r"(?<!\w)SK[0-9a-f]{32}(?!\w)"),
        (
            ("shpat_", "shpss_", "shpca_", "shppa_"),
            r"(?<!\w)shp(?:at|ss|ca|pa)_[0-9a-fA-F]{32}(?!\w)",
        ),
        (("EAAA", "sq0"), r"(?<!\w)(?:EAAA[\w-]{60}|sq0(?:atp|csp)-[\w-]{22,43})(?![\w-])"),
        (("lin_api_",), r"(?<!\w)lin_api_[A-Za-z0-9]{40}(?!\w)"),
        (("ntn_", "secret_"), r"(?<!\w)(?:ntn_[A-Za-z0-9]{40,50}|secret_[A-Za-z0-9]{43})(?!\w)"),
        (("figd_",), r"(?<!\w)figd_[\w-]{40,60}"),
        (("sntrys_",), r"(?<!\w)sntrys_[A-Za-z0-9+/=_-]{60,255}"),
        (("SG.",), r"(?<!\w)SG\.[\w-]{22}\.[\w-]{43}(?![\w-])"),
    )
)
