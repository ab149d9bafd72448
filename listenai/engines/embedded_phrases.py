"""What the offline assistant says: its texts, and values put into spoken words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

ABOUT = (
    "I am ListenAI, the offline assistant. I am a small program that runs on this server "
    "without any language model, so I understand only a few commands, but I never need "
    "the internet to understand you."
)
ABILITIES = (
    "I can tell you the time and the date, do arithmetic, tell a joke or a story, look up the "
    "weather, and change the volume or play music where the device can."
)
FALLBACK = "I am only the offline assistant, and I did not understand that. " + ABILITIES
OPENING = "Hello, I am the offline assistant. What can I do for you?"

HELP: Mapping[str, str] = {
    "help": ABILITIES,
    "help me": ABILITIES,
    "what can you do": ABILITIES,
    "what can i say": 'For example: "what time is it", "what is the weather in London", '
    '"turn the volume down", "what is seven times eight", or "tell me a story".',
    "who are you": ABOUT,
    "what is your name": "My name is ListenAI, and I am the offline assistant.",
    "how old are you": "I am a program, so I have no birthday, but I feel quite new.",
    "who made you": "I was made by the people who write the ListenAI server.",
}

CONTROL: Mapping[str, str] = {
    "stop": "Okay, I have stopped.",
    "cancel": "Okay, cancelled.",
    "yes": "All right. What would you like?",
    "no": "All right, then not.",
    "okay": "Good, I am listening.",
    "never mind": "No problem, it is forgotten.",
    "be quiet": "Okay, I am quiet.",
    "start over": "Okay, from the beginning. What can I do for you?",
}
NOTHING_TO_CONTINUE = "There is nothing to go on with. Ask me for a story."
NOTHING_TO_REPEAT = "I have not said anything yet."

WHICH_CITY = "For which city, please?"
NO_TIMER = "There is no timer, because I cannot ring yet."
NO_BRIGHTNESS = "I would, but no lamp or screen is connected to me yet, so nothing has changed."

STORIES: Sequence[str] = (
    "There was once a lighthouse on a rock so small that the keeper could walk around it in "
    "forty steps. Every evening she lit the lamp, and every evening an old grey gull came to "
    "sit on the railing and complain about the wind. One autumn the fog came in and did not "
    "leave for nine days, and on the ninth day the lamp went out. The keeper took it to "
    "pieces and put it together again, but it stayed dark. Then, far away, she heard the bell "
    "of a fishing boat that was coming much too close. She shouted, but the fog swallowed her "
    "voice. So the gull, who had complained every evening of its life, spread its wings and "
    "began to complain as it never had before. It cried so loudly, and so long, that the "
    "fishermen heard it, turned their boat, and slept that night in the harbour. In the "
    "morning the sun came back, and the lamp was mended with a spoon and a piece of string. "
    "From then on there were always two chairs at the railing. And when the gull complained "
    "about the wind, the keeper nodded, and said that it was quite right.",
    "A clockmaker once built a clock that could do everything except be on time. It showed "
    "the moon, it sang at noon, and it bowed to visitors, but it was always seven minutes late. "
    "The mayor bought it for the town hall, because it was beautiful, and nobody dared to tell "
    "him. On the first day the school began seven minutes late, and the children did not mind. "
    "On the second day the baker left his bread in the oven for seven minutes more, and "
    "everybody said that it had never been so crisp. On the third day the train was late as "
    "usual, and for the first time in the history of the town, nobody missed it. After a month "
    "the clockmaker came to repair the clock, and found the whole town standing in front of the "
    "door. They gave him a loaf of bread, a seat on the train, and their very best wishes, and "
    "they sent him home. The clock is still seven minutes late. If you ever visit the town, "
    "please do not tell it.",
)
JOKES: Sequence[str] = (
    "My microphone and I had an argument. It heard everything, and I said nothing.",
    "Why did the loudspeaker go to the doctor? Because it could hear a hum, and did not know "
    "the words.",
    "I wanted to tell you a joke about silence. But you would have had to be there to not hear it.",
    "A sentence walked into a bar and was interrupted. It never did find out how it",
)
FACTS: Sequence[str] = (
    "Sound travels about four times faster in water than in air, so a whale hears from far away "
    "what you would not.",
    "People answer each other after about a fifth of a second. That is faster than anyone can "
    "think of a word, so they begin to plan the answer while the other one is still speaking.",
    "An owl has one ear higher than the other. That is how it can tell how high up a sound is.",
)


def fresh(texts: Sequence[str], said: Sequence[str]) -> str:
    """The first text that was not begun among what was said, or the first of all."""
    begun = [words[:30] for words in said if words]
    return next((t for t in texts if not any(t.startswith(b) for b in begun)), texts[0])


def rest_of(texts: Sequence[str], heard: str) -> str:
    """What comes after the part of a text that was heard, "" when there is nothing left."""
    heard = heard.strip()
    for text in texts:
        # A part from the middle, once the text was gone on with, must be long to be certain.
        if heard and (text.startswith(heard) or (len(heard) > 20 and heard in text)):
            return text.partition(heard)[2].strip()
    return ""


# --- values in words ---------------------------------------------------------------------


def clock(now: datetime) -> str:
    """The time of day: "It is 7:05 in the morning."."""
    return f"It is {time_of_day(now)}."


def time_of_day(moment: datetime) -> str:
    """On a clock with twelve hours: "7:05 in the morning"."""
    hour = moment.hour % 12 or 12
    part = "morning" if moment.hour < 12 else "afternoon" if moment.hour < 18 else "evening"
    minutes = f":{moment.minute:02}" if moment.minute else " o'clock"
    return f"{hour}{minutes} in the {part}"


def timer(length_name: str, now: datetime, length: timedelta) -> str:
    """When a timer would ring, and that it will not."""
    end = now + length
    day = "" if end.date() == now.date() else f" on {end:%A}"
    return (
        f"Okay, {length_name} from now it will be {time_of_day(end)}{day}. "
        "But I cannot ring yet, so please keep an eye on the clock."
    )


def date(now: datetime) -> str:
    """The date: "Today is Monday, March 3, 2025."."""
    return f"Today is {now:%A}, {now:%B} {now.day}, {now.year}."


def result(left: Fraction, operator: str, right: Fraction) -> Fraction | None:
    """What plus, minus, times or divided by gives; None where there is no result."""
    match operator:
        case "plus":
            return left + right
        case "minus":
            return left - right
        case "times":
            return left * right
        case _:
            return left / right if right else None


def arithmetic(left: Fraction, operator: str, right: Fraction) -> str:
    """The sum as a sentence: "7 times 8 is 56."."""
    value = result(left, operator, right)
    if value is None:
        return "Nothing can be divided by zero."
    about = "about " if value != round(value, 3) else ""
    return f"{spoken(left)} {operator} {spoken(right)} is {about}{spoken(value)}."


def spoken(value: Fraction | float) -> str:
    """A number for a voice: at most three decimals, "minus" for a dash."""
    rounded = round(Fraction(value), 3)
    plain = str(rounded) if rounded.denominator == 1 else str(float(rounded))
    return plain.replace("-", "minus ")


def degrees(value: float) -> str:
    """A temperature: "minus 3 degrees"."""
    return f"{spoken(value)} degree{'' if abs(value) == 1 else 's'}"


# --- what came of a tool ------------------------------------------------------------------

_MAX_READ_OUT = 200  # characters of a result that no phrase fits
_MUSIC_CONTROLLED: Mapping[str, str] = {
    "pause": "The music is paused.",
    "resume": "The music goes on.",
    "stop": "The music has stopped.",
    "next": "The next song.",
    "previous": "The previous song.",
}


def tool_result(tool: str, arguments: Any, result: Any) -> str:
    """A tool's result, or honestly its failure; results of unknown shape are read out."""
    match result:
        case {"error": error}:
            return f"I am sorry, that did not work: {str(error).rstrip('.')}."
        case {"city": city, "summary": summary}:
            return (
                f"The weather in {city} {result.get('when', 'today')}: {summary}{_values(result)}."
            )
        case {"level": int(level)}:
            return f"The volume is now {level} percent."
    if tool == "play_music":
        return _music(arguments, result)
    plain = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    readable = " ".join(re.sub(r'[{}\[\]"_]+', " ", plain).split())
    return f"It says: {readable[:_MAX_READ_OUT]}." if readable else "Done."


def _values(weather: Mapping[str, Any]) -> str:
    """The numbers of a weather report, those that there are."""
    told = ""
    match weather:
        case {"now": int() | float() as now}:
            told += f", {degrees(now)} now"
    match weather:
        case {"low": int() | float() as low, "high": int() | float() as high}:
            told += f", between {spoken(low)} and {degrees(high)}"
    match weather:
        case {"rain_percent": int() | float() as rain}:
            told += f", {spoken(rain)} percent chance of rain"
    return told


def _music(arguments: Any, result: Any) -> str:
    asked = arguments if isinstance(arguments, dict) else {}
    known = result if isinstance(result, dict) else {}
    played = f"Playing {known.get('title') or asked.get('query') or 'music'}."
    return _MUSIC_CONTROLLED.get(asked.get("action", "play"), played)


# --- Chinese -----------------------------------------------------------------------------

CHINESE_FALLBACK = (
    "我是离线助手，没有听懂这句话。我可以报时间和日期，也会做简单的算术。用英语我还会讲笑话和故事。"
)
# The first that occurs in the sentence answers it.
CHINESE_ANSWERS: Mapping[str, str] = {
    "你好": "你好！我是离线助手。有什么可以帮你？",
    "您好": "您好！我是离线助手。有什么可以帮您？",
    "早上好": "早上好！有什么可以帮你？",
    "晚上好": "晚上好！有什么可以帮你？",
    "谢谢": "不客气。",
    "再见": "再见，祝你愉快。",
    "你是谁": "我是离线助手，一个不需要网络也能听懂几句话的小程序。",
    "叫什么": "我叫ListenAI，是离线助手。",
    "帮助": "我可以报时间和日期，也会做简单的算术，比如3加5。",
    "能做什么": "我可以报时间和日期，也会做简单的算术。用英语我还会讲笑话和故事。",
    "会什么": "我可以报时间和日期，也会做简单的算术。用英语我还会讲笑话和故事。",
}
_CHINESE_OPERATORS = {"plus": "加", "minus": "减", "times": "乘以", "divided by": "除以"}


def chinese_clock(now: datetime) -> str:
    """The time of day in Chinese."""
    return f"现在是{now.hour}点{now.minute}分。" if now.minute else f"现在是{now.hour}点整。"


def chinese_date(now: datetime) -> str:
    """The date in Chinese."""
    return f"今天是{now.year}年{now.month}月{now.day}日，星期{'一二三四五六日'[now.weekday()]}。"


def chinese_arithmetic(left: Fraction, operator: str, right: Fraction) -> str:
    """The sum as a sentence in Chinese."""
    value = result(left, operator, right)
    if value is None:
        return "不能除以零。"
    about = "约等于" if value != round(value, 3) else "等于"
    numbers = [spoken(number).replace("minus ", "负") for number in (left, right, value)]
    return f"{numbers[0]}{_CHINESE_OPERATORS[operator]}{numbers[1]}{about}{numbers[2]}。"
