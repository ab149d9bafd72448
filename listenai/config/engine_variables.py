"""The variables of engines that nobody has by default: libraries of their own, and clouds."""

from __future__ import annotations

import attrs

from listenai.config.checks import choice, text, url
from listenai.config.settings import setting


@attrs.frozen(slots=False)  # several bases cannot all have slots
class EngineSettings:
    """Which of them are used, and where they are; a key or a model that is given is chosen."""

    # Voice detection.
    vad_engine: str = setting(
        "VAD_ENGINE", "ten", choice("ten", "webrtc"), "what tells speech from silence"
    )

    # Our own voice in the microphone.
    echo_canceller: str = setting(
        "ECHO_CANCELLER",
        "none",
        choice("none", "webrtc"),
        "what takes our voice out of the microphone of devices that report playback",
    )

    # Vosk and Whisper.
    vosk_model_path: str = setting(
        "VOSK_MODEL_PATH",
        "",
        text(or_empty="./model, with ASR_ENGINE=vosk"),
        "folder of the Vosk model that recognises speech",
    )
    vosk_language: str = setting(
        "VOSK_LANGUAGE",
        "",
        text(or_empty="as the folder's name tells, else en"),
        "language of the Vosk model",
    )
    whisper_model: str = setting(
        "STREAM_MODEL_WHISPER",
        "",
        text(or_empty="small-int8, with ASR_ENGINE=faster-whisper"),
        "Whisper model that recognises speech: size and numbers like small-int8, or its folder",
    )

    # Azure's speech services.
    azure_speech_key: str = setting(
        "AZURE_SPEECH_KEY",
        "",
        text(or_empty="Azure is not asked"),
        "key of the Azure Speech resource that hears and speaks",
    )
    azure_speech_region: str = setting(
        "AZURE_SPEECH_REGION", "", text(or_empty="none"), "its region, like eastus2"
    )
    azure_speech_endpoint: str = setting(
        "AZURE_SPEECH_ENDPOINT",
        "",
        url("http", "https", or_empty="that of the region"),
        "its own address, where it has a private endpoint",
    )
    azure_speech_voice: str = setting(
        "AZURE_SPEECH_VOICE",
        "",
        text(or_empty="one of the conversation's language"),
        "its default voice, like en-GB-SoniaNeural",
    )

    # Language models at Azure and at Groq.
    azure_openai_endpoint: str = setting(
        "AZURE_OPENAI_ENDPOINT",
        "",
        url("http", "https", or_empty="Azure is not asked"),
        "address of the Azure OpenAI resource that answers; LLM_MODEL names the deployment",
    )
    azure_openai_key: str = setting("AZURE_OPENAI_KEY", "", text(or_empty="none"), "its key")
    azure_openai_api_version: str = setting(
        "AZURE_OPENAI_API_VERSION", "2024-10-21", text(), "version of its API"
    )
    groq_api_key: str = setting(
        "GROQ_API_KEY",
        "",
        text(or_empty="Groq is not asked"),
        "key with which Groq answers, by llama3-8b-8192 unless LLM_MODEL is set",
    )
    groq_base_url: str = setting(
        "GROQ_BASE_URL",
        "https://api.groq.com/openai/v1",
        url("http", "https", or_empty="that of Groq"),
        "where Groq is",
    )
