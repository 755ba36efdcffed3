"""Words with a role of their own when two texts are compared, by language.

The lists are short on purpose. A word that is missing costs little: a change of it counts by its
length, like a change of any other word.
"""

CLOSINGS = """
best regards
kind regards
warm regards
regards
best wishes
best
sincerely
yours sincerely
yours faithfully
yours
cheers
mit freundlichen grüßen
freundliche grüße
viele grüße
liebe grüße
grüße
saludos
un saludo
atentamente
cordialement
cordiali saluti
atenciosamente
"""
"""Lines after which a letter has only the name of its author."""

FILLERS = """
thank you very much
thank you so much
thank you in advance
thanks a lot
and thank you
and thanks
thanks in advance
thanks
thank you
many thanks
hi
hi there
hello
hello there
hey
dear team
dear all
good morning
good afternoon
good evening
best regards
kind regards
best wishes
regards
cheers
sorry
of course
could you please tell me
do you know
may i know
may i ask
just wondering
i was wondering
excuse me
quick question
i want to know
i want to know whether
i want to know if
pls
plz
thx
hi team
hello team
hi all
hello everyone
could you tell me
can you please tell me
can you tell me
could you please
would you please
can you please
please
hope that helps
hope this helps
i hope this helps
bitte
danke
und danke
und vielen dank
danke schön
danke im voraus
vielen dank
vielen dank im voraus
besten dank
guten tag
guten morgen
guten abend
hallo
liebes team
mit freundlichen grüßen
viele grüße
freundliche grüße
können sie mir bitte sagen
könnten sie mir bitte sagen
könnten sie mir sagen
kannst du mir bitte sagen
kannst du mir sagen
ich möchte wissen
ich wüsste gern
können sie mir sagen
por favor
gracias
y gracias
y muchas gracias
muchas gracias
gracias de antemano
hola
buenos días
buenas tardes
buenas noches
me podría decir
me puede decir
podría decirme
puede decirme
puedes decirme
quisiera saber
quiero saber
un saludo
saludos
disculpe
bonjour
bonsoir
merci
merci beaucoup
s'il vous plaît
s'il te plaît
cordialement
ciao
grazie
per favore
buongiorno
por favor
obrigado
obrigada
bom dia
olá
कृपया
क्या आप बता सकते हैं कि
क्या आप मुझे बता सकते हैं कि
कृपया बताएँ कि
धन्यवाद
नमस्ते
शुक्रिया
जी
"""
"""Politeness in languages with blanks between words: adds nothing to learn."""

UNSPACED_FILLERS = """
请问 请 麻烦您 麻烦你 麻烦 谢谢您 谢谢你 谢谢 多谢 您好 你好 吧 呢 啊 呀 吗 嗎 么 嘛 哦 啦
お願いいたします いただけますか いただけませんか もらえますか もらえませんか くださいませんか
お願いします お願い致します よろしくお願いいたします よろしくお願いします
よろしく すみません 恐れ入りますが ください 下さい お手数ですが お忙しいところ
ありがとうございます ありがとう です こんにちは はい
ครับผม ครับ คับ ค่ะ คะ จ้ะ จ้า นะ หน่อย ด้วย กรุณา รบกวนสอบถาม ขอสอบถาม รบกวน สวัสดี ขอบคุณมาก
ขอบคุณ
"""
"""Politeness and particles in scripts without blanks."""

UNSPACED_LIGHT = "了 的 着 个 個 就 把 ที่ นั้น นี้ ก็ จะ แล้ว"
"""Characters and words of grammar in scripts without blanks."""

LIGHT = """
a an the is are am was were be been do does did to of some any this that yes yep yeah i you we
can will
der die das den dem des ein eine einen einem einer es ist sind ja doch ich man wir kann
el la los las un una unos unas lo es de sí si yo puedo me se
le les une des du
है हैं का की के को हाँ
"""
"""Articles, pronouns and auxiliary verbs: a change of one costs little."""

DECISIVE = """
not no never none nothing nobody neither nor without hardly cannot except unless but
nicht nichts nie niemals niemand kein keine keinen keinem keiner keines ohne außer weder
nunca nadie nada ninguno ninguna sin tampoco jamás excepto
ne pas jamais rien personne aucun aucune sans
avant après dessus dessous avec gauche droite haut bas plus moins ouvrir fermer acheter vendre
oui et ou si seulement tout tous toute toutes
hier demain matin soir lundi mardi mercredi jeudi vendredi samedi dimanche
non mai niente nessuno senza não nem sem
नहीं न मत बिना ना
and or if only all every each both either
nein und oder nur alle jeder jede jedes wenn falls beide
y o solo todo todos todas ambos
और या सिर्फ केवल सब
one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred
thousand million billion first second third fourth fifth last next previous half double twice
once
zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig dreißig hundert tausend erste
zweite dritte letzte halb doppelt einmal zweimal
uno dos tres cuatro cinco seis siete ocho nueve diez once doce veinte treinta cien mil primero
segunda tercero último última medio doble
एक दो तीन चार पाँच छह सात आठ नौ दस सौ हज़ार
monday tuesday wednesday thursday friday saturday sunday weekday weekend
january february march april june july august september october november december
montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag
januar februar märz mai juni juli oktober dezember
lunes martes miércoles jueves viernes sábado domingo
enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
today tomorrow yesterday morning noon afternoon evening night
heute morgen gestern vormittag nachmittag mittag abend nacht
hoy mañana ayer tarde noche mediodía
red green blue yellow black white brown grey gray orange purple pink
rot grün blau gelb schwarz weiß braun grau
rojo roja verde azul amarillo amarilla negro negra blanco blanca
on off in out up down left right top bottom front back inside outside above below over under
before after since until during from with within
an aus auf ab ein zu hoch runter links rechts oben unten vorne hinten innen außen über unter
vor nach
seit bis von mit
arriba abajo izquierda derecha dentro fuera sobre bajo antes después desde hasta con
more less most least many few much little most higher lower larger smaller longer shorter
mehr weniger meist höher niedriger größer kleiner länger kürzer
más menos mayor menor
hot cold warm cool big large small medium long short high low new old early late fast slow cheap
expensive good bad better worse best worst open close closed full empty true false male female
minimum maximum min max same different other another old young soft hard heavy dry wet hot
heiß kalt groß klein lang kurz hoch niedrig neu alt früh spät schnell langsam billig teuer gut
schlecht offen geschlossen voll leer wahr falsch
caliente frío grande pequeño largo corto alto bajo nuevo viejo temprano tarde rápido lento
barato
caro bueno malo abierto cerrado lleno vacío
accept reject allow deny forbid enable disable start stop open close buy sell send receive add
remove
delete create keep cancel confirm renew extend increase decrease raise lower turn push pull
lock unlock
import export upload download login logout include exclude show hide win lose increase reduce
erlauben verbieten starten stoppen öffnen schließen kaufen verkaufen senden empfangen hinzufügen
entfernen löschen behalten kündigen verlängern bestätigen erhöhen senken
abrir cerrar comprar vender enviar recibir añadir quitar borrar aceptar rechazar cancelar
confirmar
encender apagar subir bajar enciendo apago
kg g mg lb lbs oz km m cm mm mi ft inch inches l ml cl h min s ms c f gb mb kb tb kw kwh w v
percent
meter metre metres meters kilometre kilometres kilometer kilometers mile miles gram grams
kilogram
pound pounds euro euros dollar dollars cent cents second seconds minute minutes hour hours day
days
week weeks month months year years degree degrees celsius fahrenheit
sekunde sekunden minute minuten stunde stunden tag tage woche wochen monat monate jahr jahre
prozent
segundo segundos minuto minutos hora horas día días semana semanas mes meses año años grados
किलो ग्राम मीटर लीटर बजे घंटे मिनट दिन महीने साल चालू बंद
"""
"""Words that an answer depends on: negation, logic, number, time, colour, place, degree, opposite
actions, units. Two texts that differ in one are different.
"""

SYNONYMS = """
yes sure
because since
ok okay
you u
closed shut
big large
fast quick
start begin
allow permit
forbid prohibit
reject refuse
remove delete
raise increase
lower reduce
last final
gray grey
l litre
km kilometre
m metre
schnell rasch
starten beginnen
rápido veloz
borrar eliminar
"""
"""Decisive words with the same meaning: a text is compared by the first of a line."""

UNSPACED_DECISIVE = """
不 没有 没 沒 无 無 非 未 别 勿 莫
一 二 两 兩 三 四 五 六 七 八 九 十 百 千 万 萬 亿 億 零 半 双 每 全 只 都
上 下 左 右 前 后 後 内 外 里 大 小 多 少 早 晚 午 昼 朝 夜 男 女 开 開 关 關 閉 東 东 西 南
北 冷 热
熱 暖 红 紅 赤 黑 黒 白 蓝 青 绿 緑 黄 新 旧 高 低 长 短 买 卖 売 買 增 增加 减少 进 出 入 左
右 和 或
今天 明天 昨天 今日 明日 昨日 星期 月 日 年
ません ない なかった なく ずに いいえ だけ
ไม่ใช่ ไม่ มิ อย่า ห้าม ไม่มี ไม่ได้ เปิด ปิด ก่อน หลัง ร้อน เย็น ใหญ่ เล็ก ขึ้น ลง ซ้าย ขวา
ซื้อ ขาย
หนึ่ง สอง สาม สี่ ห้า หก เจ็ด แปด เก้า สิบ วันนี้ พรุ่งนี้ เมื่อวาน แดง ดำ ขาว เขียว น้ำเงิน
เช้า
"""
"""The same for scripts without blanks."""
