# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001 (letters of other alphabets are meant)
import pytest
import Stemmer
from bm25s import stopwords

from keytok_haystack import fit
from keytok_haystack.vocabulary import NO_LANGUAGE, check_language, detect_language
from keytok_haystack.vocabulary.languages import STEMMED_LANGUAGES, stemmer_of, stop_words_of

SENTENCES = {
    "danish": [
        "Fartøjet blev prøvet i vindtunnelen, før det kunne få lov til at flyve over havet.",
        "Ingeniørerne målte trykket på vingen, mens luften strømmede hurtigere og hurtigere forbi.",
        "Hvis temperaturen stiger for meget, må forsøget afbrydes, og hele udstyret skal køles ned igen.",
        "Vi ved endnu ikke, hvorfor opdriften falder så pludseligt, men vi har en idé om det.",
    ],
    "dutch": [
        "Het vliegtuig werd eerst in de windtunnel beproefd voordat het over zee mocht vliegen.",
        "De ingenieurs maten de druk op de vleugel terwijl de lucht er steeds sneller langs stroomde.",
        "Als de temperatuur te hoog oploopt, moet de proef worden afgebroken en alles worden gekoeld.",
    ],
    "english": [
        "The aircraft was tested in the wind tunnel before it was allowed to fly over the sea.",
        "The engineers measured the pressure on the wing while the air flowed past it ever faster.",
        "If the temperature rises too high, the experiment has to be stopped and everything cooled down.",
    ],
    "french": [
        "L'avion a été essayé dans la soufflerie avant de pouvoir voler au-dessus de la mer.",
        "Les ingénieurs ont mesuré la pression sur l'aile pendant que l'air s'écoulait de plus en plus vite.",
        "Si la température monte trop haut, il faut interrompre l'essai et tout refroidir.",
    ],
    "german": [
        "Das Flugzeug wurde zuerst im Windkanal geprüft, bevor es über das Meer fliegen durfte.",
        "Die Ingenieure maßen den Druck auf dem Flügel, während die Luft immer schneller vorbeiströmte.",
        "Wenn die Temperatur zu hoch steigt, muss der Versuch abgebrochen und alles gekühlt werden.",
    ],
    "italian": [
        "L'aereo è stato provato nella galleria del vento prima di poter volare sopra il mare.",
        "Gli ingegneri hanno misurato la pressione sull'ala mentre l'aria scorreva sempre più veloce.",
        "Se la temperatura sale troppo, bisogna interrompere la prova e raffreddare tutto quanto.",
    ],
    "norwegian": [
        "Flyet ble først prøvd i vindtunnelen før det fikk lov til å fly over havet til Norge.",
        "Ingeniørene målte trykket på vingen mens lufta strømmet raskere og raskere forbi den.",
        "Hvis temperaturen stiger for mye, må forsøket avbrytes, og alt utstyret må kjøles ned.",
        "Vi vet ikke ennå hvorfor oppdriften faller så brått, men vi har noen tanker om hva det skyldes.",
    ],
    "portuguese": [
        "O avião foi testado no túnel de vento antes de poder voar por cima do mar.",
        "Os engenheiros mediram a pressão na asa enquanto o ar passava cada vez mais depressa.",
        "Se a temperatura subir demasiado, é preciso interromper a experiência e arrefecer tudo.",
    ],
    "russian": [
        "Самолёт сначала испытали в аэродинамической трубе, прежде чем ему разрешили лететь над морем.",
        "Инженеры измеряли давление на крыле, пока воздух обтекал его всё быстрее и быстрее.",
        "Если температура поднимется слишком высоко, опыт нужно прервать и всё охладить.",
    ],
    "spanish": [
        "El avión se probó primero en el túnel de viento antes de que pudiera volar sobre el mar.",
        "Los ingenieros midieron la presión en el ala mientras el aire pasaba cada vez más rápido.",
        "Si la temperatura sube demasiado, hay que interrumpir el ensayo y enfriarlo todo.",
    ],
    "swedish": [
        "Flygplanet provades först i vindtunneln innan det fick flyga över havet.",
        "Ingenjörerna mätte trycket på vingen medan luften strömmade förbi allt snabbare.",
        "Om temperaturen stiger för mycket måste försöket avbrytas och allting kylas ned.",
    ],
    "turkish": [
        "Uçak, denizin üzerinden uçmasına izin verilmeden önce rüzgâr tünelinde denendi.",
        "Mühendisler, hava giderek daha hızlı akarken kanadın üzerindeki basıncı ölçtüler.",
        "Sıcaklık çok yükselirse deney durdurulmalı ve her şey soğutulmalıdır.",
    ],
}
LISTED = {"english", *(name for name in STEMMED_LANGUAGES.values() if hasattr(stopwords, f"STOPWORDS_{name.upper()}"))}
WITHOUT_STEMMER = {
    "chinese": [
        "飞机在获准飞越大海之前先在风洞中进行了试验。",
        "工程师们测量了机翼上的压力。",
        "温度过高时必须停止试验。",
    ],
    "japanese": [
        "飛行機は海の上を飛ぶ前に風洞で試験された。",
        "技術者たちは翼の圧力を測った。",
        "温度が上がりすぎたら中止する。",
    ],
    "korean": [
        "비행기는 바다 위를 날기 전에 풍동에서 시험되었다.",
        "기술자들은 날개의 압력을 측정했다.",
        "온도가 너무 오르면 멈춘다.",
    ],
    "thai": ["เครื่องบินถูกทดสอบในอุโมงค์ลมก่อนที่จะบินข้ามทะเล", "วิศวกรวัดความดันบนปีก", "ถ้าอุณหภูมิสูงเกินไปต้องหยุดการทดลอง"],
}


def test_there_are_sentences_in_all_languages_with_stop_words():
    assert SENTENCES.keys() == LISTED
    assert len(SENTENCES) == 12


@pytest.mark.parametrize("language", SENTENCES)
def test_a_language_is_found_from_a_few_sentences_as_texts_and_as_one(language: str):
    assert detect_language(SENTENCES[language]) == language
    assert detect_language([" ".join(SENTENCES[language])]) == language
    assert detect_language(["", *SENTENCES[language], " \n"]) == language


@pytest.mark.parametrize("texts", WITHOUT_STEMMER.values(), ids=WITHOUT_STEMMER)
def test_a_language_without_a_stemmer_is_none(texts: list[str]):
    assert detect_language(texts) == NO_LANGUAGE


@pytest.mark.parametrize("other", ["german", "russian", "french"])
def test_texts_in_two_languages_are_in_none_unless_one_is_rare(other: str):
    english, foreign = (SENTENCES[language] for language in ("english", other))
    assert detect_language([*english, *foreign]) == NO_LANGUAGE
    assert detect_language([*english * 3, foreign[0]]) == "english"


def test_votes_count_by_length_up_to_a_bound():
    english, german = (" ".join(SENTENCES[language]) for language in ("english", "german"))
    assert detect_language([english * 3, german[:60]]) == "english"
    assert detect_language([english * 300, german * 3]) == NO_LANGUAGE, "a text of any length has one voice"


@pytest.mark.parametrize("texts", [[], [""], [" ", "\n\t"], ["", "\u00a0"]], ids=["none", "empty", "blank", "no-break"])
def test_no_words_are_in_no_language(texts: list[str]):
    assert detect_language(texts) == NO_LANGUAGE


def test_of_many_texts_a_sample_from_all_over_is_read():
    german_behind = SENTENCES["english"][:1] * 3000 + SENTENCES["german"][:1] * 3000
    assert detect_language(german_behind) == NO_LANGUAGE
    assert detect_language(SENTENCES["english"][:1] * 9000 + SENTENCES["german"][:1] * 900) == "english"


@pytest.mark.parametrize("language", ["klingon", "English", "en", "", "porter", "None"])
def test_an_unknown_language_is_refused_in_one_sentence_that_lists_the_known_ones(language: str):
    with pytest.raises(
        ValueError, match=f"There is no stemmer for the language '{language}': use 'none', or"
    ) as raised:
        check_language(language)
    message = str(raised.value)
    assert message.count(".") == 1
    assert message.endswith(".")
    listed = message.removesuffix(".").partition("one of ")[2].split(", ")
    assert listed == sorted(set(STEMMED_LANGUAGES.values()))


def test_an_unknown_language_is_refused_before_fitting(small_embeddings, small_texts):
    with pytest.raises(ValueError, match="no stemmer for the language 'klingon'"):
        fit(small_embeddings, small_texts, language="klingon")


def test_each_language_has_a_stemmer_of_snowball_and_none_has_none():
    assert {name for name in STEMMED_LANGUAGES.values() if name not in Stemmer.algorithms()} == set()
    for language in set(STEMMED_LANGUAGES.values()):
        check_language(language)
        assert stemmer_of(language) is not None
    check_language(NO_LANGUAGE)
    assert stemmer_of(NO_LANGUAGE) is None


def test_stop_words_are_those_of_bm25s_and_for_english_the_longer_list():
    assert stop_words_of("german") == set(stopwords.STOPWORDS_GERMAN)
    assert stop_words_of("english") == set(stopwords.STOPWORDS_EN_PLUS) > set(stopwords.STOPWORDS_EN)
    assert stop_words_of("finnish") == stop_words_of(NO_LANGUAGE) == frozenset()
    for language in LISTED:
        assert len(stop_words_of(language)) > 100
