"""Phone numbers: what is one, and its one spelling. Used by the operations."""

import phonenumbers

from services.identity.domain import Phone
from services.identity.errors import PhoneInvalidError


def parse_phone(text: str) -> Phone:
    """Return the E.164 form of a number that its country's numbering plan has.

    Two spellings of one number ("+4401514960001", "+441514960001") give one phone. Raises
    PhoneInvalidError for a number that cannot exist.
    """
    number = _parsed(text)
    if number is None or not phonenumbers.is_valid_number(number):
        raise PhoneInvalidError
    return _e164(number)


def normalised_phone(text: str) -> Phone:
    """Return the E.164 form of a number whether or not its country's plan has it now.

    For log-in: numbering plans change, and nobody may lose their account by that.
    """
    number = _parsed(text)
    return Phone(text) if number is None else _e164(number)


def _parsed(text: str) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return None


def _e164(number: phonenumbers.PhoneNumber) -> Phone:
    return Phone(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
